"""What the loops of a compiled kernel do, read from its machine code: no GPU is needed.

A multiprocessor of sm_80 to sm_120 starts four instructions of a warp in a cycle, one in each
quarter. Two things can be slower: the unit for conversions and transcendental functions takes 16
numbers in a cycle, and shared memory gives 128 bytes. So a loop takes at least the largest of
three counts of cycles; what tensor cores take is not counted. A loop that streams memory must stay
well below the cycles in which memory gives what it reads (see `PACES`). Bank conflicts and waiting
come on top, and are not seen. All counts are of a multiprocessor that is full: one that holds a
single program of one warp starts one instruction in a cycle, not four.

Throughputs are those of the CUDA C++ Programming Guide, "Arithmetic Instructions", but for INT8 to
FP16, which the guide counts among the faster conversions and which goes through the slower unit.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from triton import knobs

PACES: Final[Mapping[str, float]] = {
    "Jetson AGX Orin": 204.8e9 / 16 / 1.3e9,
    "H200": 4.8e12 / 132 / 1.98e9,
}
"""Bytes of memory for a multiprocessor and cycle: bandwidth, multiprocessors and highest clock of
NVIDIA's data sheets. Of GPUs with slower memory and as many multiprocessors, less is asked."""

_QUARTERS: Final = 4
_LANES: Final = 32
_CONVERTED: Final = 16
"""Numbers that a multiprocessor's conversion unit takes in a cycle."""
_CONVERSIONS: Final = frozenset({"I2F", "F2I", "F2F", "MUFU"})
_SHARED: Final = ("LDS", "STS", "LDGSTS")
_WIDTH: Final = re.compile(r"\.(\d+)$")
_SHORTEST: Final = 8
"""A loop of fewer instructions waits or copies a remainder; it does not stream."""

_INSTRUCTION: Final = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;", re.MULTILINE
)
_BRANCH: Final = re.compile(r"^BRA\b.*?0x([0-9a-f]+)$")


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop: how often each instruction stands in it, by its full name."""

    instructions: Counter[str]

    def cycles(self, warps: int) -> float:
        """The least cycles of a turn, for a program of so many warps."""
        return max(self.issued(warps), self.converted(warps), self.shared(warps))

    @property
    def length(self) -> int:
        """Instructions of a turn."""
        return self.instructions.total()

    def issued(self, warps: int) -> float:
        """Cycles in which a multiprocessor starts a turn's instructions, for a program's warps."""
        return self.length * warps / _QUARTERS

    def converted(self, warps: int) -> float:
        """Cycles of the unit for conversions and transcendental functions."""
        found = self.instructions.items()
        count = sum(n for name, n in found if name.split(".")[0] in _CONVERSIONS)
        return count * warps * _LANES / _CONVERTED

    def shared(self, warps: int) -> float:
        """Cycles of shared memory, free of bank conflicts."""
        total = sum(n * _wavefronts(name) for name, n in self.instructions.items())
        return total * warps


def _wavefronts(name: str) -> int:
    """How many times 128 bytes a warp's access moves; 0 for what is no access of shared memory."""
    if not name.startswith(_SHARED):
        return 0
    width = _WIDTH.search(name)
    number = int(width[1]) if width else 1
    # LDSM counts matrices of 128 bytes, the others bits of a lane.
    return number if name.startswith("LDSM") else max(1, number // 32)


def loops(cubin: bytes) -> list[Loop]:
    """The innermost loops of a kernel, in order."""
    code = list(_disassembled(cubin))
    spans = [
        (int(branch[1], 16), address)
        for address, text in code
        if (branch := _BRANCH.match(text)) and int(branch[1], 16) < address
    ]
    innermost = [
        (first, last)
        for first, last in spans
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in spans)
    ]
    found = [
        Loop(Counter(text.split()[0] for address, text in code if first <= address <= last))
        for first, last in innermost
    ]
    return [loop for loop in found if loop.length >= _SHORTEST]


def _disassembled(cubin: bytes) -> Iterator[tuple[int, str]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "-sass", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for address, instruction in _INSTRUCTION.findall(text):
        yield int(address, 16), instruction
