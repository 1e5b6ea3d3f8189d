"""The number format of training goes by the processor alone."""

import pytest
import torch

from export.training import precision


@pytest.mark.parametrize(("units", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_products_are_in_bfloat16_where_there_are_units_for_it(
    units: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units})
    assert precision.has_matrix_units() == units
    with precision.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


def test_a_processor_of_another_kind_has_no_such_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    assert not precision.has_matrix_units()
