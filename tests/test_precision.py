"""The number format of training goes by the processor alone."""

import pytest
import torch

from export.training import precision

_XEON = {"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}
_EPYC = {"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        (_XEON, torch.float32),
        (_XEON | {"amx_bf16": True}, torch.bfloat16),
        (_EPYC, torch.bfloat16),
        (_EPYC | {"avx512_bf16": False}, torch.float32),
        ({"architecture": "aarch64"}, torch.float32),
    ],
)
def test_products_are_in_bfloat16_where_that_is_faster(
    capabilities: dict[str, object], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision.has_fast_bfloat16() == (dtype == torch.bfloat16)
    with precision.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype
