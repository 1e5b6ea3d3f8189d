"""Muon against torch's own, and against what it is made to do."""

import copy

import pytest
import torch
from torch import nn

from export.training import muon
from export.training.muon import Muon, orthogonal

DECAY, MOMENTUM = 0.03, 0.95


def two_matrices(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.ModuleList([nn.Linear(24, 40, bias=False), nn.Linear(40, 8, bias=False)])


def steps(module: nn.Module, optimiser: torch.optim.Optimizer, count: int) -> None:
    generator = torch.Generator().manual_seed(5)
    for number in range(count):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * (number + 1)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()


@pytest.mark.parametrize(("fast", "tolerance"), [(True, 2e-3), (False, 2e-2)])
def test_it_is_torchs(monkeypatch: pytest.MonkeyPatch, fast: bool, tolerance: float) -> None:
    """In bfloat16 to rounding; in float32 as near as torch's, which has bfloat16 alone, can be."""
    monkeypatch.setattr(muon, "has_fast_bfloat16", lambda: fast)
    ours = two_matrices(1)
    theirs = copy.deepcopy(ours)
    before = [parameter.clone() for parameter in ours.parameters()]
    steps(ours, Muon([{"params": list(ours.parameters())}], DECAY, MOMENTUM), 4)
    reference = torch.optim.Muon(
        theirs.parameters(),
        weight_decay=DECAY,
        momentum=MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    steps(theirs, reference, 4)
    for mine, other, first in zip(ours.parameters(), theirs.parameters(), before, strict=True):
        moved = (other - first).norm()
        assert (mine - other).norm() < tolerance * moved


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("shape", [(16, 16), (8, 96), (96, 8), (1, 5)])
def test_updates_are_orthogonal_whatever_their_size(
    shape: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "has_fast_bfloat16", lambda: fast)
    generator = torch.Generator().manual_seed(2)
    left, right = (
        torch.linalg.qr(torch.randn(size, min(shape), generator=generator, dtype=torch.float64))[0]
        for size in shape
    )
    values = torch.linspace(0.2, 1.0, min(shape), dtype=torch.float64)
    for size in (1e-4, 1.0, 1e4):
        made = orthogonal((size * left * values @ right.T).float()).float()
        singular = torch.linalg.svdvals(made)
        assert singular.min() > 0.65
        assert singular.max() < 1.25
        # The same directions: what is made has no part outside of the matrix's own.
        kept = left.T @ made.double() @ right
        assert (kept - kept.diagonal().diag()).abs().max() < 0.05
    assert orthogonal(torch.zeros(shape)).abs().max() == 0


def test_it_goes_on_from_its_state() -> None:
    whole, parts = two_matrices(3), two_matrices(3)
    optimiser = Muon([{"params": list(whole.parameters())}], DECAY, MOMENTUM)
    steps(whole, optimiser, 2)
    first = Muon([{"params": list(parts.parameters())}], DECAY, MOMENTUM)
    steps(parts, first, 2)
    second = Muon([{"params": list(parts.parameters())}], DECAY, MOMENTUM)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(whole, optimiser, 3)
    steps(parts, second, 3)
    assert all(map(torch.equal, whole.parameters(), parts.parameters()))


def test_what_has_no_gradient_stays() -> None:
    module = two_matrices(4)
    before = [parameter.clone() for parameter in module.parameters()]
    optimiser = Muon([{"params": list(module.parameters()), "lr": 0.1}], DECAY, MOMENTUM)
    optimiser.step()
    assert all(map(torch.equal, module.parameters(), before))
