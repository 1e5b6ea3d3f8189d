"""Processes that train one model together, one thread each.

Small tensors leave two threads of one process waiting for each other; two processes that only
meet to average their gradients keep two cores busy.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import nn
from typing_extensions import TypeVarTuple, Unpack

from export.training.pointwise import fuse

_Args = TypeVarTuple("_Args")


def train_together(size: int, work: Callable[[Unpack[_Args]], None], *args: Unpack[_Args]) -> None:
    """Run `work(*args)` in `size` processes at once; fails when one of them does."""
    with TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        _run_all([(_join, (rank, size, store, work, args)) for rank in range(size)])


def train_apart(*works: tuple[Callable[..., None], tuple[object, ...]]) -> None:
    """Run each of several (function, its arguments) in a process of its own, one thread each.

    They know nothing of each other; fails when one of them does.
    """
    _run_all([(_alone, (work, args)) for work, args in works])


def _run_all(works: Sequence[tuple[Callable[..., None], tuple[object, ...]]]) -> None:
    context = torch.multiprocessing.get_context("spawn")
    members = [context.Process(target=work, args=args) for work, args in works]
    for member in members:
        member.start()
    for member in members:
        member.join()
    if any(member.exitcode for member in members):
        raise RuntimeError("a training process failed; its own error stands above")


def _alone(work: Callable[..., None], args: tuple[object, ...]) -> None:
    settle()
    work(*args)


def settle() -> None:
    """Make this process one that trains: one thread, and pointwise operations compiled."""
    torch.set_num_threads(1)
    fuse()


def _join(
    rank: int, size: int, store: Path, work: Callable[..., None], args: tuple[object, ...]
) -> None:
    settle()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    work(*args)
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
