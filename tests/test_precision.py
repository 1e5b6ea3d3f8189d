"""The number format of training is the one that is faster here."""

from collections.abc import Iterator

import pytest
import torch

from export.training import precision


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    precision.bfloat16_pays.cache_clear()
    yield
    precision.bfloat16_pays.cache_clear()


@pytest.mark.parametrize(
    ("seconds", "dtype"), [(0.2, torch.bfloat16), (0.9, torch.float32), (1.3, torch.float32)]
)
def test_products_are_in_bfloat16_where_it_is_clearly_faster(
    seconds: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = {torch.float32: 1.0, torch.bfloat16: seconds}
    monkeypatch.setattr(precision, "seconds_for", took.__getitem__)
    with precision.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


def test_it_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[torch.dtype] = []

    def count(dtype: torch.dtype) -> float:
        tried.append(dtype)
        return 1.0

    monkeypatch.setattr(precision, "seconds_for", count)
    for _ in range(3):
        precision.autocast()
    assert sorted(map(str, tried)) == ["torch.bfloat16", "torch.float32"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trial_takes_time(dtype: torch.dtype) -> None:
    assert 0 < precision.seconds_for(dtype) < 60
