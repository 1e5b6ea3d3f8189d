"""Checkpoints for speed: random ones of a given shape, and their bundles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from export.bundling.manifest import describe
from export.bundling.write import seal, write_model
from export.convert import Conversion, recipe_of
from export.graphs.write import Advance
from idetex_edge.bundle import MANIFEST

CHECKPOINTS: Final = Path(__file__).parents[1] / "checkpoints"

SHAPES: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "0.4B": {
        "text_config": {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "layer_types": ["full_attention"] * 24,
            "max_window_layers": 24,
        },
        "vision_config": {
            "depth": 12,
            "hidden_size": 640,
            "intermediate_size": 1728,
            "num_heads": 10,
            "out_hidden_size": 896,
            "fullatt_block_indexes": [2, 5, 8, 11],
        },
    }
}
"""What a shape changes in nano's config.json; tokenizer and prompts are nano's."""


def random_checkpoint(shape: str, work: Path) -> Path:
    """Make a checkpoint of random weights in `work`, unless one is there."""
    folder = work / shape
    if (folder / "model.safetensors").is_file():
        return folder
    # Imported here: they take seconds, and bundles do without them.
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    nano = CHECKPOINTS / "nano"
    for file in nano.iterdir():
        if file.suffix != ".safetensors":
            shutil.copyfile(file, folder / file.name)
    config = json.loads((nano / "config.json").read_text(encoding="utf-8"))
    for part, changes in SHAPES[shape].items():
        config[part] |= changes
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder))
    model.save_pretrained(folder)
    return folder


def bundle_of(checkpoint: Path, work: Path, advance: Advance) -> Path:
    """Convert a checkpoint to INT8 for onnx-cpu, unless that was done before.

    Without the proof: random weights say nothing, and what a checkpoint says is not measured here.
    """
    recipe = recipe_of(Conversion(checkpoint, work, "onnx-cpu", "int8"))
    folder = work / "bundles" / checkpoint.name
    if not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_model(recipe, folder, advance)
        seal(folder, describe(recipe, checkpoint.name, "onnx-cpu", "int8"))
    return folder
