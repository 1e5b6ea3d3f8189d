import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as reference

from idetex_edge.errors import BundleError, ImageError
from idetex_edge.preprocess import Preprocessor, smart_resize

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
QWEN = Preprocessor(14, 2, 2, 56 * 56, 28 * 28 * 1280, CLIP_MEAN, CLIP_STD)
NANO = Preprocessor(14, 2, 2, 224 * 224, 448 * 448, CLIP_MEAN, CLIP_STD)
OTHER = Preprocessor(16, 3, 1, 96 * 96, 384 * 384, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
SIZES = [
    (512, 512), (640, 428), (428, 640), (448, 448), (451, 300), (28, 28), (29, 27), (1, 1), (1, 7),
    (9, 13), (200, 1), (1, 200), (1600, 8), (8, 1600), (3, 3), (2000, 31), (57, 56), (1023, 767),
]  # fmt: skip


def photo(width: int, height: int) -> Image.Image:
    picture = Image.fromarray(data.coffee() if width % 2 else data.astronaut())
    return picture.resize((width, height))


def hugging_face(preprocessor: Preprocessor) -> reference.Qwen2VLImageProcessorPil:
    return reference.Qwen2VLImageProcessorPil(**preprocessor.to_dict())


@pytest.mark.parametrize("preprocessor", [QWEN, NANO, OTHER], ids=["qwen", "nano", "other"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_bit_for_bit_what_transformers_gives(
    preprocessor: Preprocessor, width: int, height: int
) -> None:
    picture = photo(width, height)
    want = hugging_face(preprocessor)(images=[picture], return_tensors="np")
    got = preprocessor.patchify(picture)
    assert [1, *got.grid] == want["image_grid_thw"][0].tolist()
    assert got.patches.dtype == np.float32
    assert got.patches.flags.c_contiguous
    assert np.array_equal(got.patches, want["pixel_values"])
    assert got.source_size == (width, height)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([28, 32, 48]), st.data())
@settings(max_examples=300)
def test_sizes_are_those_of_transformers(
    height: int, width: int, factor: int, draw: st.DataObject
) -> None:
    smallest = draw.draw(st.integers(1, 10**6))
    largest = draw.draw(st.integers(smallest, 10**7))
    try:
        want = reference.smart_resize(height, width, factor, smallest, largest)
    except ValueError:
        with pytest.raises(ImageError, match="too narrow"):
            smart_resize(height, width, factor, smallest, largest)
        return
    assert smart_resize(height, width, factor, smallest, largest) == want


def test_strips_are_refused_and_modes_checked() -> None:
    with pytest.raises(ImageError, match="30000 x 10"):
        QWEN.patchify(Image.new("RGB", (30_000, 10)))
    with pytest.raises(ImageError, match="load_image"):
        QWEN.patchify(Image.new("L", (100, 100)))


def test_the_dictionary_round_trips_through_json() -> None:
    for preprocessor in (QWEN, NANO, OTHER):
        assert (
            Preprocessor.from_dict(json.loads(json.dumps(preprocessor.to_dict()))) == preprocessor
        )


def test_files_saved_by_transformers_are_read(tmp_path: Path) -> None:
    hugging_face(NANO).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert "size" in config
    assert Preprocessor.from_dict(config) == NANO


def test_both_spellings_of_the_limits() -> None:
    plain = NANO.to_dict()
    sized = {key: plain[key] for key in plain if not key.endswith("_pixels")}
    sized["size"] = {"shortest_edge": NANO.min_pixels, "longest_edge": NANO.max_pixels}
    assert Preprocessor.from_dict(sized) == NANO
    both = plain | {"size": {"shortest_edge": 1, "longest_edge": 2}}
    assert Preprocessor.from_dict(both) == NANO
    assert Preprocessor.from_dict(sized | {"min_pixels": None, "max_pixels": None}) == NANO


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"patch_size": None}, "malformed"),
        ({"image_mean": [0.5, 0.5]}, "malformed"),
        ({"image_std": [0.5, 0.5, 0.0]}, "makes no sense"),
        ({"min_pixels": 10**9}, "makes no sense"),
        ({"merge_size": 0}, "makes no sense"),
        ({"resample": 2}, "resample=2"),
        ({"do_normalize": False}, "do_normalize=False"),
        ({"rescale_factor": 1.0}, "1/255"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        Preprocessor.from_dict(NANO.to_dict() | change)


@pytest.mark.parametrize("key", sorted(NANO.to_dict()))
def test_missing_facts_are_named(key: str) -> None:
    config = NANO.to_dict()
    del config[key]
    limits = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
    with pytest.raises(BundleError, match=limits.get(key, key)):
        Preprocessor.from_dict(config)
