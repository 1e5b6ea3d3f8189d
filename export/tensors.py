"""Reading safetensors files a tensor at a time, by plain reads.

Mapped files would stay in memory for as long as they are mapped, and a big checkpoint's add up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from idetex_edge.errors import ExportError

_TYPES: Final[Mapping[str, torch.dtype]] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class _Place:
    kind: str
    shape: tuple[int, ...]
    first: int
    last: int


class TensorFile:
    """One file's tensors, by name."""

    def __init__(self, path: Path) -> None:
        """Read the header; raises ExportError when the file is missing or no safetensors file."""
        self._path = path
        try:
            self._places = dict(_header(path))
        except FileNotFoundError:
            raise ExportError(
                f"shard {path.name} is missing from {path.parent}; download it again"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(f"cannot read {path.name}: {error!r}; download it again") from None

    @property
    def names(self) -> list[str]:
        """The tensors that are in it."""
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape without reading it; raises ExportError when it is not there."""
        return self._place(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """Give a tensor's number format; raises ExportError when it is not there or no float."""
        kind = self._place(name).kind
        if kind not in _TYPES:
            raise ExportError(
                f"tensor {name} is {kind}; convert needs FP32, FP16 or BF16 weights, so "
                "dequantise the checkpoint first"
            )
        return _TYPES[kind]

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor as float32.

        Raises ExportError when it is not there, not floating point, or cut off.
        """
        place, dtype = self._place(name), self.dtype(name)
        data = bytearray(place.last - place.first)
        with self._path.open("rb") as file:
            file.seek(place.first)
            if file.readinto(data) != len(data):
                raise ExportError(f"{self._path.name} ends within {name}; download it again")
        if not data:
            return torch.empty(place.shape)
        return torch.frombuffer(data, dtype=dtype).reshape(place.shape).float()

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise ExportError(f"{self._path.name} has no tensor {name}; download it again")
        return self._places[name]


def _header(path: Path) -> Iterator[tuple[str, _Place]]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= path.stat().st_size - 8:
            raise ValueError("its header is longer than the file")
        header: dict[str, dict[str, Any]] = json.loads(file.read(size))
    for name, facts in header.items():
        if name != "__metadata__":
            first, last = (8 + size + int(offset) for offset in facts["data_offsets"])
            shape = tuple(int(length) for length in facts["shape"])
            kind = str(facts["dtype"])
            if kind in _TYPES and last - first != math.prod(shape) * _TYPES[kind].itemsize:
                raise ValueError(f"{name} has not the size of its shape")
            yield name, _Place(kind, shape, first, last)
