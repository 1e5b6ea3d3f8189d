"""A checkpoint as transformers before 5 wrote it, which peers' converters read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def flat_checkpoint(checkpoint: Path, folder: Path) -> Path:
    """Copy a checkpoint to `folder`, anew, with the older JSON files; returns the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder)
    changes = {"config.json": flat_config, "tokenizer_config.json": _older_tokenizer}
    for name, change in changes.items():
        path = folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))), encoding="utf-8")
    return folder


def _older_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    special = config.get("extra_special_tokens")
    named = {} if special is None else {"additional_special_tokens": special}
    rest = {key: value for key, value in config.items() if key != "extra_special_tokens"}
    return rest | named | {"tokenizer_class": "PreTrainedTokenizerFast"}


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """The flat form of a config.json with `text_config`."""
    text = dict(config["text_config"])
    rope = text.pop("rope_parameters")
    vision = dict(config["vision_config"])
    vision |= {"in_chans": vision["in_channels"], "spatial_patch_size": vision["patch_size"]}
    outer = {key: value for key, value in config.items() if not key.endswith("_config")}
    return {
        **text,
        **outer,
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "vision_config": vision,
        "torch_dtype": "float32",
    }
