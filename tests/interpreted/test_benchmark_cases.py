"""What `benchmarks/kernels.py` would time on a GPU is right in small."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kernels.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The script as a module, under a name that hides no package."""
    spec = spec_from_file_location("benchmark_of_kernels", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("form", "rows"), [("int8", 1), ("int4", 1), ("integer", 17)])
def test_linear(benchmark: ModuleType, form: str, rows: int) -> None:
    case = benchmark.linear_case(form, rows, 70, 128, "cpu")
    assert benchmark.error_of(case.run(), case.right()) < case.tolerance
    assert case.operations == 2 * rows * 70 * 128


@pytest.mark.parametrize(("prefix", "tail"), [(270, 0), (270, 5)])
def test_decode_attention(benchmark: ModuleType, prefix: int, tail: int) -> None:
    case = benchmark.decode_case(3, prefix, tail, "cpu")
    assert benchmark.error_of(case.run(), case.right()) < case.tolerance
    read = prefix + 3 * tail if tail else 3 * prefix
    query = 3 * 16 * 128 * 2
    assert case.moved == read * 2 * (2 * 128 + 8) + 2 * query


def test_nan_is_no_small_error(benchmark: ModuleType) -> None:
    assert benchmark.error_of(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")
