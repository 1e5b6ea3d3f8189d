"""Where coordinates are read: cells along edges, and attention that finds them."""

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from export.supervision.example import Example
from export.training.batched_language import Trace
from export.training.checking import told_boxes
from export.training.packing import Packed, Packer
from export.training.pointing import edge_cells, place_head, place_loss, pointing_loss
from idetex_edge.prompts import PromptSet

_ROWS, _COLUMNS = 4, 5
_BOX = "<|box_start|>(200,250),(800,1000)<|box_end|>"
_EMPTY = "<|box_start|>(300,300),(300,900)<|box_end|>"


def _drawn(cells: Tensor) -> list[str]:
    return ["".join(".#"[int(c)] for c in row) for row in cells.view(_ROWS, _COLUMNS)]


def test_edges_are_the_outermost_cells_inside_a_box() -> None:
    left, top, right, bottom = edge_cells(torch.tensor([[200, 250, 800, 1000]]), 4, 5)[0]
    assert _drawn(left) == [".....", ".#...", ".#...", ".#..."]
    assert _drawn(top) == [".....", ".###.", ".....", "....."]
    assert _drawn(right) == [".....", "...#.", "...#.", "...#."]
    assert _drawn(bottom) == [".....", ".....", ".....", ".###."]


def test_a_cell_that_is_hardly_touched_is_not_inside() -> None:
    (cells,) = edge_cells(torch.tensor([[190, 240, 810, 760]]), 4, 5)
    assert _drawn(cells[0] | cells[1] | cells[2] | cells[3]) == [".....", ".###.", ".###.", "....."]
    for thin in ([401, 0, 420, 1000], [555, 0, 585, 1000]):
        (cells,) = edge_cells(torch.tensor([thin]), 4, 5)
        assert _drawn(cells[0]) == _drawn(cells[2]) == ["..#..", "..#..", "..#..", "..#.."]


def test_places_are_the_centres_of_cells_in_raster_order() -> None:
    y = torch.tensor([-0.75, -0.25, 0.25, 0.75]).repeat_interleave(5)
    x = torch.tensor([-0.8, -0.4, 0.0, 0.4, 0.8]).repeat(4)
    right = torch.stack((x, y), dim=-1)[None]
    assert float(place_loss(right, 4, 5)) == pytest.approx(0, abs=1e-6)
    assert float(place_loss(right.flip(-1), 4, 5)) > 0.1
    assert place_head(16)(torch.randn(2, 20, 16)).shape == (2, 20, 2)


@pytest.fixture
def packed(small_tokenizer: Tokenizer, nano_prompts: PromptSet) -> Packed:
    packer = Packer(small_tokenizer, nano_prompts)
    examples = [
        [Example("score", " good", levels=(0, 0, 0, 1, 0)), Example("grounding", "Noise " * 30)],
        [Example("grounding", f"Noise:\n{_EMPTY}{_BOX}"), Example("grounding", "No distortion")],
    ]
    return packer.pack(examples, _ROWS, _COLUMNS)


def test_boxes_are_packed_with_the_tokens_that_their_numbers_follow(
    packed: Packed, small_tokenizer: Tokenizer
) -> None:
    assert packed.boxes.tolist() == [[300, 300, 300, 900], [200, 250, 800, 1000]]
    ids = torch.cat([block.ids.flatten() for block in packed.blocks])
    followed = [
        [int(small_tokenizer.decode([int(ids[row + 1])])) for row in rows[:3]]
        for rows in packed.box_rows.tolist()
    ]
    assert followed == [box[:3] for box in packed.boxes.tolist()]
    position = {int(row): number for number, row in enumerate(packed.rows)}
    last = [int(packed.targets[position[int(row)]]) for row in packed.box_rows[:, 3]]
    assert [int(small_tokenizer.decode([token])) for token in last] == [900, 1000]


def _trace(packed: Packed, favourite: Tensor) -> Trace:
    """Attention of one head by which every query prefers the cells where `favourite` is high.

    favourite: [cells].
    """
    queries: list[Tensor] = []
    keys: list[Tensor] = []
    prefix = packed.blocks[0].ids.shape[1]
    for block in packed.blocks:
        count, length = block.ids.shape
        past = 0 if block.picture is None else prefix
        queries.append(torch.ones(count, 1, length, 1))
        key = torch.zeros(count, 1, past + length, 1)
        key[:, 0, packed.image, 0] = favourite
        keys.append(key)
    nothing = torch.empty(0)
    return Trace(nothing, nothing, nothing, tuple(queries), tuple(keys))


def test_pointing_is_free_where_all_attention_goes_along_the_edges(packed: Packed) -> None:
    cells = edge_cells(packed.boxes[1:], _ROWS, _COLUMNS)[0]
    shared = cells.any(0)
    everywhere = float(pointing_loss(_trace(packed, torch.zeros(20)), packed))
    inside = float(pointing_loss(_trace(packed, shared * 30.0), packed))
    left = float(pointing_loss(_trace(packed, cells[0] * 30.0), packed))
    assert inside < everywhere
    # One head that all four numbers share finds a quarter of them for certain.
    assert left > inside
    expected = [-torch.tensor(float(c.sum()) / float(shared.sum())).log() for c in cells]
    assert inside == pytest.approx(float(torch.stack(expected).mean()), abs=1e-4)


def test_an_answer_without_boxes_points_nowhere(
    small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    none = Packer(small_tokenizer, nano_prompts).pack([[Example("grounding", "fine")]], 4, 5)
    assert none.boxes.shape == none.box_rows.shape == (0, 4)
    logits = torch.zeros(len(none.targets), small_tokenizer.get_vocab_size())
    guessed, truth = told_boxes(logits, none, torch.arange(1001))
    assert guessed.shape == truth.shape == (0, 4)
    assert float(pointing_loss(_trace(none, torch.zeros(20)), none)) == 0.0


def test_boxes_that_a_model_finds_are_counted_but_for_repeated_ones(
    small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    packer = Packer(small_tokenizer, nano_prompts)
    again = f"Noise:\n{_BOX}{_EMPTY}{_BOX}"
    asked = Example("region", f"Noise: {_EMPTY}{_BOX}", {"region": _EMPTY})
    packed = packer.pack([[asked, Example("grounding", again)]], _ROWS, _COLUMNS)
    logits = torch.zeros(len(packed.targets), small_tokenizer.get_vocab_size())
    logits[torch.arange(len(logits)), packed.targets] = 1.0
    guessed, truth = told_boxes(logits, packed, packer.number_ids)
    assert sorted(guessed.tolist()) == sorted(truth.tolist())
    assert sorted(truth.tolist()) == [
        [200, 250, 800, 1000],
        [200, 250, 800, 1000],
        [300, 300, 300, 900],
    ]
    assert int(packed.repeated.sum()) == 8


def test_what_has_not_four_numbers_is_no_box(
    small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    broken = "<|box_start|>(1,2)<|box_end|> 3, 4 <|box_start|>(5,"
    packed = Packer(small_tokenizer, nano_prompts).pack([[Example("grounding", broken)]], 4, 5)
    assert packed.boxes.shape == packed.box_rows.shape == (0, 4)
