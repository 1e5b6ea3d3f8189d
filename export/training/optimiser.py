"""Muon for the matrices of hidden layers, AdamW for all else, as one optimiser.

Muon (`muon.py`) orthogonalises each matrix's update. Here it learnt in 150 steps what AdamW had not
in thousands; its rate is scaled to AdamW's, so both follow one schedule.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from export.training.muon import Muon

_DECAY: Final = 0.03
_BETAS: Final = (0.9, 0.98)
_MOMENTUM: Final = 0.95


class Optimiser:
    """Updates the parameters of named modules; each module has a rate of its own.

    modules: (module, its share of the rate) by name. Embeddings, heads (`nn.Linear` at the top
    level of a module) and whatever is no matrix go to AdamW.
    """

    def __init__(self, modules: Mapping[str, tuple[nn.Module, float]]) -> None:
        matrices: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for module, share in modules.values():
            inner = [p for p in _hidden_matrices(module) if p.requires_grad]
            known = {id(p) for p in inner}
            rest = [p for p in module.parameters() if id(p) not in known and p.requires_grad]
            if inner:
                matrices.append({"params": inner, "share": share})
            if rest:
                others.append({"params": rest, "share": share})
        muon = Muon(matrices, _DECAY, _MOMENTUM)
        adam = torch.optim.AdamW(others, betas=_BETAS, weight_decay=_DECAY)
        self._parts: tuple[torch.optim.Optimizer, ...] = (muon, adam)

    def step(self, rate: float) -> None:
        """Update all parameters at a rate, then clear their gradients."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * group["share"]
            part.step()
            part.zero_grad()

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint."""
        return [part.state_dict() for part in self._parts]

    def load(self, states: list[dict[str, Any]]) -> None:
        """Go on from a checkpoint."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def _hidden_matrices(module: nn.Module) -> list[torch.Tensor]:
    return [
        layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and "." in name
    ]
