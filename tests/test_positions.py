from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLModel,
    Qwen2_5_VLRotaryEmbedding,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

from idetex_edge.errors import RequestError
from idetex_edge.positions import mrope_positions, mrope_rotary, vision_rotary, vision_windows

IMAGE = 7
HEAD = 32
GRIDS = [
    (2, 2), (2, 8), (8, 2), (8, 8), (16, 16), (10, 14), (18, 34), (32, 32), (2, 80), (46, 30),
    (24, 24),
]  # fmt: skip
SECTIONS = (4, 6, 6)


class VisionSettings(TypedDict):
    window_size: int
    patch_size: int
    merge_size: int


NANO: VisionSettings = {"window_size": 112, "patch_size": 14, "merge_size": 2}


def configuration(merge_size: int = 2, window_size: int = 112) -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 16,
            "hidden_size": 2 * HEAD,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": list(SECTIONS),
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 2 * HEAD,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 2 * HEAD,
            "window_size": window_size,
            "fullatt_block_indexes": [1],
            "spatial_merge_size": merge_size,
        },
        image_token_id=IMAGE,
    )


def run_reference(
    config: Qwen2_5_VLConfig, grid: tuple[int, int]
) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the first block of transformers' vision model was called with, and what went in.

    Returns the keyword arguments of the block, its input, the patches before any reordering, and
    the place in the output of each merged token in window order.
    """
    torch.manual_seed(0)
    model = Qwen2_5_VisionTransformerPretrainedModel(cast("Any", config.vision_config)).eval()
    calls: list[tuple[Any, Any]] = []
    merged: list[torch.Tensor] = []

    def record(_module: object, args: object, kwargs: object) -> None:
        calls.append((args, kwargs))

    model.blocks[0].register_forward_pre_hook(record, with_kwargs=True)

    def record_merged(_module: object, _args: object, output: torch.Tensor) -> None:
        merged.append(output)

    model.merger.register_forward_hook(record_merged)
    patches = torch.randn(grid[0] * grid[1], 3 * 2 * 14 * 14)
    with torch.no_grad():
        pooled = model(patches, grid_thw=torch.tensor([[1, *grid]])).pooler_output
        embedded = model.patch_embed(patches)
    places = (pooled[None] == merged[0][:, None]).all(-1).int().argmax(1)
    return calls[0][1], calls[0][0][0], embedded, places


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("window_size", [56, 112])
def test_windows_and_rotary_tables_are_those_of_transformers(
    grid: tuple[int, int], window_size: int
) -> None:
    arguments, block_input, embedded, places = run_reference(
        configuration(window_size=window_size), grid
    )
    windows = vision_windows(*grid, window_size=window_size, patch_size=14, merge_size=2)
    assert windows.cu_seqlens.dtype == np.int32
    assert windows.cu_seqlens.tolist() == arguments["cu_seqlens"].tolist()
    assert np.array_equal(windows.reorder(embedded.numpy()), block_input.numpy())
    assert windows.index.tolist() == places.tolist()
    assert windows.index[windows.inverse].tolist() == list(range(len(places)))

    tables = vision_rotary(*grid, head_size=HEAD, merge_size=2, windows=windows)
    for table, want in zip(tables, arguments["position_embeddings"], strict=True):
        assert table.dtype == np.float32
        np.testing.assert_allclose(np.tile(table, 2), want.numpy(), atol=2e-7)


def test_a_merge_of_three_patches() -> None:
    grid = (12, 21)
    arguments, block_input, embedded, _ = run_reference(configuration(3, 126), grid)
    windows = vision_windows(*grid, window_size=126, patch_size=14, merge_size=3)
    assert windows.cu_seqlens.tolist() == arguments["cu_seqlens"].tolist()
    assert np.array_equal(windows.reorder(embedded.numpy()), block_input.numpy())


def test_without_windows_patches_keep_their_order() -> None:
    windows = vision_windows(10, 14, **NANO)
    plain = vision_rotary(10, 14, head_size=HEAD, merge_size=2)
    ordered = vision_rotary(10, 14, head_size=HEAD, merge_size=2, windows=windows)
    for before, after in zip(plain, ordered, strict=True):
        assert not np.array_equal(before, after)
        assert np.array_equal(windows.reorder(before), after)


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=100)
def test_windows_are_whole(token_rows: int, token_columns: int) -> None:
    windows = vision_windows(2 * token_rows, 2 * token_columns, **NANO)
    assert sorted(windows.index.tolist()) == list(range(token_rows * token_columns))
    lengths = np.diff(windows.cu_seqlens)
    assert lengths.min() > 0
    assert lengths.max() <= 64
    assert windows.cu_seqlens[-1] == 4 * token_rows * token_columns


MODELS: dict[str, Any] = {
    "qwen2_5_vl": Qwen2_5_VLModel(configuration()),
    "qwen2_vl": Qwen2VLModel(
        Qwen2VLConfig(
            text_config={
                "vocab_size": 16,
                "hidden_size": 2 * HEAD,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
            },
            vision_config={"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 2 * HEAD},
        )
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("before", "behind"), [(0, 0), (0, 5), (4, 0), (13, 29)])
def test_positions_are_those_of_transformers(
    name: str, grid: tuple[int, int], before: int, behind: int
) -> None:
    count = grid[0] * grid[1] // 4
    ids = [1] * before + [IMAGE] * count + [2] * behind
    want, delta = MODELS[name].get_rope_index(
        input_ids=torch.tensor([ids]),
        mm_token_type_ids=torch.tensor([[int(token == IMAGE) for token in ids]]),
        image_grid_thw=torch.tensor([[1, *grid]]),
    )
    positions, following = mrope_positions(ids, image_token=IMAGE, grid=grid, merge_size=2)
    assert positions.dtype == np.int64
    assert np.array_equal(positions, want[:, 0].numpy())
    assert following == len(ids) + int(delta[0, 0])


def test_text_goes_on_where_the_picture_ended() -> None:
    grid = (10, 14)
    head, tail = [1, 1] + [IMAGE] * 35 + [2], [3] * 9
    whole, end = mrope_positions(head + tail, image_token=IMAGE, grid=grid, merge_size=2)
    first, following = mrope_positions(head, image_token=IMAGE, grid=grid, merge_size=2)
    rest, last = mrope_positions(tail, image_token=IMAGE, grid=None, merge_size=2, start=following)
    assert np.array_equal(np.concatenate([first, rest], axis=1), whole)
    assert end == last


def test_a_picture_may_come_behind_earlier_tokens() -> None:
    grid = (10, 14)
    head, tail = [1, 1], [1] + [IMAGE] * 35 + [2]
    whole, end = mrope_positions(head + tail, image_token=IMAGE, grid=grid, merge_size=2)
    rest, last = mrope_positions(tail, image_token=IMAGE, grid=grid, merge_size=2, start=2)
    assert np.array_equal(rest, whole[:, 2:])
    assert end == last


def test_no_tokens_at_all() -> None:
    positions, following = mrope_positions([], image_token=IMAGE, grid=None, merge_size=2, start=5)
    assert positions.shape == (3, 0)
    assert following == 5


@pytest.mark.parametrize(
    ("ids", "grid"),
    [
        ([1, 2], (4, 4)),
        ([IMAGE] * 3, (4, 4)),
        ([IMAGE] * 5, (4, 4)),
        ([IMAGE] * 2 + [1] + [IMAGE] * 2, (4, 4)),
        ([IMAGE], None),
    ],
)
def test_pictures_that_do_not_fit(ids: list[int], grid: tuple[int, int] | None) -> None:
    with pytest.raises(RequestError, match="picture tokens"):
        mrope_positions(ids, image_token=IMAGE, grid=grid, merge_size=2)


def test_rotary_tables_of_text_are_those_of_transformers() -> None:
    generator = np.random.default_rng(0)
    positions: npt.NDArray[np.int64] = generator.integers(0, 32768, (3, 200))
    embedding = Qwen2_5_VLRotaryEmbedding(cast("Any", configuration().text_config))
    want = embedding(torch.zeros(1), torch.from_numpy(positions)[:, None])
    got = mrope_rotary(positions, head_size=HEAD, sections=SECTIONS, theta=1e6)
    for table, reference in zip(got, want, strict=True):
        assert table.dtype == np.float32
        assert table.shape == (200, HEAD // 2)
        np.testing.assert_allclose(np.tile(table, 2), reference[0].numpy(), atol=2e-7)


def test_sections_must_fill_half_a_head() -> None:
    with pytest.raises(RequestError, match="add up to 16"):
        mrope_rotary(np.zeros((3, 1), np.int64), head_size=HEAD, sections=(8, 12, 12), theta=1e6)
