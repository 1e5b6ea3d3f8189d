"""What `benchmarks/kernels.py` would time on a GPU is right in small, and torch does the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.gpu import attention, layers
from benchmarks.gpu.case import Case
from benchmarks.gpu.cases import plans
from benchmarks.gpu.figures import ENGINE, Figures
from benchmarks.gpu.goals import GOALS, judged
from benchmarks.gpu.rows import Row, error, error_of
from idetex_edge.measuring.rows import Row as Figure

HERE = ("cpu", 1)
"""The processor, and as many multiprocessors as the least GPU: large tiles and long chunks."""

SMALL: dict[str, Callable[[], Case]] = {
    "linear of floats": lambda: layers.linear_case("float", 70, 130, 128, *HERE),
    "linear INT8 with a gate": lambda: layers.linear_case("int8", 1, 70, 128, *HERE, "gated"),
    "linear INT8 and residual": lambda: layers.linear_case("int8", 9, 70, 192, *HERE, "residual"),
    "linear INT8": lambda: layers.linear_case("int8", 1, 70, 128, *HERE),
    "linear INT4": lambda: layers.linear_case("int4", 9, 70, 128, *HERE),
    "linear INT8 by INT8": lambda: layers.linear_case("integer", 17, 70, 128, *HERE),
    "norm": lambda: layers.norm_case(3, 80, "cpu"),
    "rows to INT8": lambda: layers.quantize_case(5, 96, "cpu"),
    "append": lambda: attention.append_case(3, "cpu"),
    "decode alone": lambda: attention.decode_case(3, 270, 0, "int8", *HERE),
    "decode shared": lambda: attention.decode_case(3, 270, 5, "int8", *HERE),
    "decode of floats": lambda: attention.decode_case(2, 70, 0, "float", "cpu", 8),
    "prefill INT8": lambda: attention.prefill_case(70, 30, "int8", "cpu"),
    "prefill of floats": lambda: attention.prefill_case(3, 0, "float", "cpu"),
    "windows": lambda: attention.windows_case(2, 70, "cpu"),
    "projector BF16": lambda: layers.projector_case("float", "bf16", 6, 32, 40, *HERE),
    "projector INT8": lambda: layers.projector_case("integer", "fp16", 6, 32, 40, *HERE),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_case_is_right_and_its_peer_does_the_same(name: str) -> None:
    torch.manual_seed(0)
    case = SMALL[name]()
    assert error(case) < case.tolerance
    assert case.moved > 0
    for peer in case.peers.values():
        found, right = peer(), case.right()
        if case.told is not None:
            found = case.told()
        if found.ndim == 4:
            # SDPA: [batch, heads, tokens, size], one token of many rows or many tokens in windows.
            found = found.transpose(1, 2).reshape(right.shape)
        assert error_of(found, right) < 3e-2


def test_bytes_and_operations_are_counted() -> None:
    shared = attention.decode_case(3, 270, 5, "int8", *HERE)
    query = 3 * 16 * 128 * 2
    assert shared.moved == (270 + 3 * 5) * 2 * 2 * (128 + 4) + 2 * query
    assert shared.operations == 4 * 3 * 275 * 16 * 128
    causal = attention.prefill_case(3, 2, "float", "cpu")
    assert causal.operations == 4 * (3 + 4 + 5) * 16 * 128
    assert layers.linear_case("int8", 2, 70, 128, *HERE).operations == 2 * 2 * 70 * 128


def test_goals_are_of_what_is_measured() -> None:
    rows = {name: Row(name, 0.0, 2.0, 1.0, 0.5, {"compiled": 3.0}) for name in plans(*HERE)}
    place = ("448x448", ENGINE, "3B")
    measured = Figures(
        (
            Figure("describe128", *place, "decode", 9, 9, 9, "tok/s", 6.0),
            Figure("ask8", *place, "end to end", 9, 9, 9, "ms", 7.0),
        ),
        {"3B": 0.7},
    )
    reached = judged(rows, measured)
    assert [goal.name for goal in reached] == [goal.name for goal in GOALS]
    assert [goal.ratio for goal in reached] == [0.5, 1.0, 0.5, 1.5, 1.5, 0.7, 6.0, 7.0]
    assert [goal.met for goal in reached] == [False] * 3 + [True, False, True, True, False]
    assert all(goal.met is None for goal in judged({}, Figures()))
    assert [goal.ratio for goal in judged(rows, Figures())[5:]] == [None] * 3


def test_nan_is_no_small_error() -> None:
    assert error_of(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")
