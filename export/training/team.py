"""Processes that train one model together, one thread each.

Small tensors leave two threads of one process waiting for each other; two processes that only
meet to average their gradients keep two cores busy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import nn

from export.training.pointwise import fuse


@dataclass(frozen=True, slots=True)
class Team:
    """`size` processes that do `work(*args)`; several average their gradients."""

    size: int
    work: Callable[..., None]
    args: tuple[object, ...]


def train_apart(*teams: Team) -> None:
    """Run every team's work in processes of its own, one thread each.

    Teams know nothing of each other; fails when one process does.
    """
    with TemporaryDirectory() as folder:
        stores = [Path(folder) / str(number) for number in range(len(teams))]
        context = torch.multiprocessing.get_context("spawn")
        members = [
            context.Process(target=_join, args=(member, team, store))
            for team, store in zip(teams, stores, strict=True)
            for member in range(team.size)
        ]
        for member in members:
            member.start()
        for member in members:
            member.join()
    if any(member.exitcode for member in members):
        raise RuntimeError("a training process failed; its own error stands above")


def settle() -> None:
    """Make this process one that trains: one thread, and pointwise operations compiled."""
    torch.set_num_threads(1)
    fuse()


def _join(member: int, team: Team, store: Path) -> None:
    settle()
    if team.size == 1:
        team.work(*team.args)
        return
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=member, world_size=team.size
    )
    team.work(*team.args)
    dist.destroy_process_group()


def rank() -> int:
    """The number of this process in its team, 0 where there is none."""
    return dist.get_rank() if dist.is_initialized() else 0


def average_gradients(module: nn.Module, seconds: float) -> float:
    """Replace each gradient by the team's mean; returns the mean of `seconds` too.

    Every member must have the same gradients set. Clocks differ, and who stops when must not.
    """
    if not dist.is_initialized():
        return seconds
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([seconds])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    *parts, clock = flat.split([*(g.numel() for g in gradients), 1])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return float(clock)
