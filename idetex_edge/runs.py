"""Runs of tokens."""

from __future__ import annotations

from collections.abc import Sequence


def common_run(runs: Sequence[list[int]]) -> list[int]:
    """The longest run that all begin with."""
    # What the first and the last in order share, all between them share too.
    first, last = min(runs), max(runs)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((i for i, (left, right) in pairs if left != right), len(first))]
