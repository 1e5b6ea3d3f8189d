from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from export.checkpoint import open_checkpoint
from export.names import our_name
from idetex_edge.errors import ExportError

TARGETS = ["q_proj", "v_proj", "down_proj", "qkv"]


def adapt(base: Path, folder: Path, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Save a random adapter for a base; peft's own merge of the two, by our names."""
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    adapted: Any = get_peft_model(model, LoraConfig(target_modules=TARGETS, r=4, **settings))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data = torch.randn_like(parameter) * 0.1 + (1.0 if "magnitude" in name else 0)
    adapted.save_pretrained(folder)
    merged = adapted.merge_and_unload()
    return {our_name(name): value for name, value in merged.state_dict().items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": 12},
        {"lora_alpha": 8, "use_rslora": True, "rank_pattern": {"q_proj": 2}},
        {"lora_alpha": 8, "alpha_pattern": {"down_proj": 32}, "use_dora": True},
        {"lora_alpha": 8, "modules_to_save": ["lm_head"]},
    ],
)
def test_adapters_merge_as_peft_merges_them(settings: dict[str, Any], tmp_path: Path) -> None:
    base = tiny.save_qwen2_5_vl(tmp_path / "base", tied=False)
    expected = adapt(base, tmp_path / "adapter", settings)
    weights = open_checkpoint(base, tmp_path / "adapter").weights
    plain = open_checkpoint(base).weights
    changed = 0
    for name, value in expected.items():
        np.testing.assert_allclose(weights.read(name), value.numpy(), atol=1e-5)
        changed += not np.array_equal(weights.read(name), plain.read(name))
    assert changed >= 9


def test_adapters_for_another_base(tmp_path: Path) -> None:
    wide = {"hidden_size": 512, "num_attention_heads": 8}
    other = tiny.save_qwen2_5_vl(tmp_path / "other", text=wide)
    adapt(other, tmp_path / "adapter", {"lora_alpha": 8})
    base = tiny.save_qwen2_5_vl(tmp_path / "base")
    with pytest.raises(ExportError, match=r"made for another base \(.*other\).*does not fit"):
        open_checkpoint(base, tmp_path / "adapter")
    deep = tiny.save_qwen2_5_vl(tmp_path / "deep", text={"num_hidden_layers": 3})
    adapt(deep, tmp_path / "third", {"lora_alpha": 8})
    with pytest.raises(ExportError, match=r"text\.layers\.2\..*does not fit"):
        open_checkpoint(base, tmp_path / "third")


def test_folders_that_are_no_adapters(tmp_path: Path) -> None:
    base = tiny.save_qwen2_5_vl(tmp_path / "base")
    with pytest.raises(ExportError, match="is not an adapter"):
        open_checkpoint(base, tmp_path / "nowhere")
    model = AutoModelForImageTextToText.from_pretrained(base)
    scaled: Any = get_peft_model(
        model, IA3Config(target_modules=["k_proj"], feedforward_modules=[])
    )
    scaled.save_pretrained(tmp_path / "scaled")
    with pytest.raises(ExportError, match="only LoRA can be merged"):
        open_checkpoint(base, tmp_path / "scaled")
    adapt(base, tmp_path / "lora", {"lora_alpha": 8})
    (tmp_path / "lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"adapter_model\.safetensors is missing"):
        open_checkpoint(base, tmp_path / "lora")
    config = tmp_path / "lora" / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "NONSENSE"}))
    with pytest.raises(ExportError, match="is not an adapter"):
        open_checkpoint(base, tmp_path / "lora")
