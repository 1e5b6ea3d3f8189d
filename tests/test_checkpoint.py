from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edit_json import REMOVE, edit_json
from safetensors.torch import load_file, save_file

from export.checkpoint import Checkpoint, open_checkpoint
from idetex_edge.errors import ExportError


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def facts(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Everything that can be compared between two copies."""
    nothing: Any = None
    return replace(checkpoint, folder=folder, weights=nothing, config=nothing)


def test_flat_and_nested_configurations_mean_the_same(tiny_checkpoint: Path, copy: Path) -> None:
    data = json.loads((copy / "config.json").read_text())
    text = data.pop("text_config")
    rope = text.pop("rope_parameters")
    data |= text | {
        "model_type": "qwen2_5_vl",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "torch_dtype": "float32",
    }
    data["vision_config"].pop("rope_parameters")
    data["vision_config"].pop("model_type")
    (copy / "config.json").write_text(json.dumps(data))
    nested, flat = open_checkpoint(tiny_checkpoint), open_checkpoint(copy)
    assert facts(flat, copy) == facts(nested, copy)


def test_either_naming_of_tensors_and_shards_and_bf16(tiny_checkpoint: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    new_names = {
        name.replace("visual.", "model.visual.")
        if name.startswith("visual.")
        else name.replace("model.", "model.language_model."): value.to(torch.bfloat16)
        for name, value in tensors.items()
    }
    (copy / "model.safetensors").unlink()
    halves = sorted(new_names)[::2], sorted(new_names)[1::2]
    index = {name: f"part-{i}.safetensors" for i, half in enumerate(halves) for name in half}
    for i, half in enumerate(halves):
        save_file({name: new_names[name] for name in half}, copy / f"part-{i}.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    old, new = open_checkpoint(tiny_checkpoint).weights, open_checkpoint(copy).weights
    for name in ("text.layers.1.mlp.down_proj.weight", "visual.blocks.0.attn.qkv.bias"):
        assert new.shape(name) == old.shape(name)
        expected = torch.from_numpy(old.read(name)).to(torch.bfloat16).float().numpy()
        assert new.read(name).dtype == np.float32
        np.testing.assert_array_equal(new.read(name), expected)
    (copy / "part-1.safetensors").unlink()
    with pytest.raises(ExportError, match=r"part-1\.safetensors is missing"):
        open_checkpoint(copy)


def test_folders_that_are_no_checkpoints(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(ExportError, match=r"no config\.json"):
        open_checkpoint(tmp_path / "nowhere")
    (copy / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(ExportError, match="cannot read model"):
        open_checkpoint(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"no model\.safetensors"):
        open_checkpoint(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(ExportError, match="cannot read"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ({("model_type",): "llava"}, "'llava' is not supported; qwen2_vl, qwen2_5_vl are"),
        ({("model_type",): "qwen2", ("vision_config",): REMOVE}, "text-only"),
        ({("text_config", "hidden_size"): "wide"}, "malformed"),
        (
            {
                ("text_config", "rope_parameters", "rope_type"): "linear",
                ("text_config", "rope_parameters", "factor"): 2.0,
            },
            "rotary scaling 'linear'",
        ),
        (
            {
                ("text_config", "use_sliding_window"): True,
                ("text_config", "sliding_window"): 8,
                ("text_config", "max_window_layers"): 0,
                ("text_config", "layer_types"): None,
            },
            "sliding",
        ),
        ({("text_config", "num_attention_heads"): 32}, "multiple of 16"),
    ],
)
def test_unsupported_configurations(
    copy: Path, edits: dict[tuple[str, ...], object], says: str
) -> None:
    edit_json(copy / "config.json", edits)
    with pytest.raises(ExportError, match=says) as error:
        open_checkpoint(copy)
    assert "\n" not in str(error.value)
