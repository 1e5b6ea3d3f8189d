"""Rounding numbers to few bits, symmetrically: whole numbers, and the step that each stands for."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from export.graphs.rows import Array

LARGEST: Final = 127
"""Of 8 bits, on either side."""

_GROUP: Final = 4
"""Weights of a row that processors multiply and add together."""


def steps(values: Array, limit: int) -> Array:
    """Give the step that maps each last axis to -limit..limit, [.., 1]; 1 where it is all zeros."""
    found = np.abs(values).max(axis=-1, keepdims=True) / np.float32(limit)
    return np.where(found == 0, np.float32(1), found)


def quantised(values: Array, limit: int) -> npt.NDArray[np.int8]:
    """Round each last axis to -limit..limit by its own step."""
    return np.rint(values / steps(values, limit)).astype(np.int8)


def blocks(w: Array, block: int) -> Array:
    """Cut rows into blocks, [outputs, blocks, block], zeros behind the end."""
    outputs, inputs = w.shape
    count = -(-inputs // block)
    padded = np.zeros((outputs, count * block), np.float32)
    padded[:, :inputs] = w
    return padded.reshape(outputs, count, block)


def summable_steps(w: Array) -> Array:
    """Give the step of each row [outputs, 1] with which no two products overflow 16 bits.

    x86 without VNNI adds two products of an unsigned and a signed byte there, and 255 * 128 is the
    most that it holds: so much may two weights of a group have together, where their signs agree.
    """
    groups = blocks(w, _GROUP)
    pairs = [
        np.sort(np.maximum(sign * groups, 0), axis=-1)[..., -2:].sum(-1).max(-1, keepdims=True)
        for sign in (1, -1)
    ]
    found = np.maximum(*pairs) / np.float32(LARGEST)
    return np.where(found == 0, np.float32(1), found)
