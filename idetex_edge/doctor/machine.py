"""The machine itself, read from the files in which Linux tells of it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Final

_INT8_FLAGS: Final = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
"""Instructions that multiply 8-bit integers, the fastest first, as /proc/cpuinfo names them."""

_JETPACK_OF_L4T: Final = {"35": "JetPack 5", "36": "JetPack 6", "38": "JetPack 7"}


def machine_facts(root: Path = Path("/")) -> dict[str, str]:
    """System, processor, memory and, on a Jetson, its board, JetPack and power mode, by name.

    root: where the file system begins. What a machine does not tell is left out.
    """
    cpu = _text(root / "proc/cpuinfo")
    facts = {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "processor": _processor(cpu),
        "8-bit products": _int8_instruction(cpu),
        "memory": _memory(_text(root / "proc/meminfo")),
        "board": _text(root / "proc/device-tree/model").strip("\0\n "),
        "jetpack": _jetpack(_text(root / "etc/nv_tegra_release")),
        "power mode": _power_mode(root),
    }
    return {name: value for name, value in facts.items() if value}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _processor(cpu: str) -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", cpu, re.MULTILINE)
    cores = len(set(re.findall(r"^core id\s*:\s*(\d+)$", cpu, re.MULTILINE)))
    count = f"{cores} cores" if cores else f"{os.cpu_count()} processors"
    return f"{model[1]}, {count}" if model else count


def _int8_instruction(cpu: str) -> str:
    if not cpu:
        return ""
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:\s*(.+)$", cpu, re.MULTILINE)).split())
    return next((flag for flag in _INT8_FLAGS if flag in flags), "none: INT8 is hardly faster")


def _memory(meminfo: str) -> str:
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", meminfo, re.MULTILINE))
    if not {"MemTotal", "MemAvailable"} <= kilobytes.keys():
        return ""
    total, free = (int(kilobytes[name]) / 1e6 for name in ("MemTotal", "MemAvailable"))
    return f"{total:.1f} GB, {free:.1f} GB available"


def _jetpack(release: str) -> str:
    """`# R36 (release), REVISION: 4.3, ...` is L4T 36.4.3, part of JetPack 6."""
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
    if found is None:
        return ""
    return f"{_JETPACK_OF_L4T.get(found[1], 'JetPack')} (L4T {found[1]}.{found[2]})"


def _power_mode(root: Path) -> str:
    """The tool nvpmodel keeps `pmode:0002` of the modes that its configuration names."""
    kept = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if kept is None:
        return ""
    number = int(kept[1])
    named = re.search(rf"< POWER_MODEL ID={number} NAME=(\S+) >", _text(root / "etc/nvpmodel.conf"))
    return f"{number} ({named[1]})" if named else str(number)
