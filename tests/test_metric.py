"""The pyiqa-style metric: scores of files and tensors are the Assessor's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prompted import with_prompts
from skimage import data

from idetex_edge import Assessor, ImageError, RequestError
from idetex_edge.metric import Metric, create_metric


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("metric") / "nano", "nano", 400)


@pytest.fixture(scope="module")
def metric(bundle: Path) -> Metric:
    return create_metric(bundle, threads=1)


def test_a_file_and_tensors_of_it(metric: Metric, bundle: Path, tmp_path: Path) -> None:
    picture = data.chelsea()
    path = tmp_path / "photo.png"
    Image.fromarray(picture).save(path)
    expected = Assessor(bundle).score(path).score
    assert metric(path) == metric(str(path)) == expected
    batch = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    dark = batch / 4
    scores = metric(torch.cat([batch, dark]).requires_grad_())
    assert isinstance(scores, torch.Tensor)
    assert (scores.dtype, scores.shape, scores.requires_grad) == (torch.float32, (2,), False)
    darkened = np.rint(picture / 4.0).astype(np.uint8)
    alone = [Assessor(bundle).score(p).score for p in (picture, darkened)]
    np.testing.assert_allclose(scores.numpy(), alone, rtol=1e-3)
    np.testing.assert_array_equal(metric(batch[0].numpy()), [expected])
    assert metric(batch.double()).dtype == torch.float64


def test_what_pyiqa_users_look_up(metric: Metric) -> None:
    assert metric.lower_better is False
    low, high = (float(number) for number in metric.score_range.split(","))
    assert (low, high) == (0, 100)


def test_what_is_no_batch(metric: Metric) -> None:
    for wrong in (torch.zeros(2, 1, 64, 64), torch.zeros(64, 64), torch.zeros(1, 3, 64, 64).byte()):
        with pytest.raises(RequestError, match=r"\[N, 3, H, W\]"):
            metric(wrong)
    with pytest.raises(ImageError, match=r"0\.\.1"):
        metric(torch.full((1, 3, 64, 64), 255.0))
    with pytest.raises(RequestError, match="cannot score list"):
        metric([1.0])  # pyright: ignore[reportCallIssue, reportArgumentType]
