"""Tiny checkpoints whose numbers FP16 cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tiny
from safetensors.torch import load_file, save_file

LAST = "visual.blocks.2.mlp.down_proj"


def save_loud(folder: Path) -> Path:
    """As Qwen2.5-VL-3B is: what the last vision block's down_proj takes is beyond FP16."""
    block = "visual.blocks.2.mlp"
    return _save(
        folder,
        {
            f"{block}.gate_proj.weight": 1000.0,
            f"{block}.up_proj.weight": 1000.0,
            f"{block}.down_proj.weight": 1e-6,
        },
    )


def save_shouting(folder: Path) -> Path:
    """Values that attention reads are beyond FP16; the output projection makes them small again."""
    layer = "model.layers.1.self_attn"
    return _save(
        folder,
        {
            f"{layer}.v_proj.weight": 1e6,
            f"{layer}.v_proj.bias": 1e6,
            f"{layer}.o_proj.weight": 1e-6,
        },
    )


def _save(folder: Path, factors: Mapping[str, float]) -> Path:
    tiny.ask_briefly(tiny.save_qwen2_5_vl(folder), context=512)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, factor in factors.items():
        tensors[name] *= factor
    save_file(tensors, path, metadata={"format": "pt"})
    return folder
