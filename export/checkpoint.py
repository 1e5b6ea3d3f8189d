"""A Qwen2-VL or Qwen2.5-VL checkpoint folder: its facts, and its weights read one at a time.

Accepts what Hugging Face has published: `config.json` flat (transformers 4) or nested
(transformers 5), safetensors whole or sharded, in BF16, FP16 or FP32, with tensor names of either
generation. A tensor is converted to float32 when it is read and not kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedConfig, Qwen2_5_VLConfig, Qwen2VLConfig

from export.adapter import AdaptedWeights
from export.graphs.rows import WeightSource
from export.names import our_name
from export.source import checkpoint_folder
from export.tensors import TensorFile
from idetex_edge.bundle import TextFacts, VisionFacts
from idetex_edge.errors import ExportError

FAMILIES: Final[dict[str, type[Qwen2VLConfig | Qwen2_5_VLConfig]]] = {
    "qwen2_vl": Qwen2VLConfig,
    "qwen2_5_vl": Qwen2_5_VLConfig,
}
"""The architectures that export supports, by `model_type`."""


class Weights:
    """The tensors of a checkpoint under one naming: `visual.*`, `text.*`, `head.weight`."""

    def __init__(self, folder: Path) -> None:
        """Find the safetensors files; raises ExportError when there are none or one is missing."""
        self._places: dict[str, tuple[TensorFile, str]] = {}
        stats: list[tuple[str, int, int]] = []
        for path, names in tensor_files(folder).items():
            file = TensorFile(path)
            self._places |= {our_name(name): (file, name) for name in names or file.names}
            stats.append((str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns))
        self.identity = tuple(stats)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape without reading it."""
        file, key = self._find(name)
        return file.shape(key)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read one tensor as float32; raises ExportError when the checkpoint lacks it."""
        file, key = self._find(name)
        return file.read(key).numpy()

    def _find(self, name: str) -> tuple[TensorFile, str]:
        if name not in self._places:
            raise ExportError(
                f"the checkpoint has no tensor {name}; it is incomplete or not a vision-language "
                "model, so download it again"
            )
        return self._places[name]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened checkpoint. Activations are Hugging Face names ("silu", "quick_gelu", ...)."""

    folder: Path
    config: Qwen2VLConfig | Qwen2_5_VLConfig
    family: str
    text: TextFacts
    vision: VisionFacts
    tied: bool
    norm_epsilon: float
    text_activation: str
    vision_activation: str
    image_token_id: int
    stop: tuple[int, ...]
    weights: WeightSource

    @property
    def name(self) -> str:
        """What the model is called: its folder's name."""
        return self.folder.resolve().name


def open_checkpoint(model: str | Path, adapter: Path | None = None) -> Checkpoint:
    """Open a checkpoint folder or hub id, with a LoRA adapter's folder merged in where given.

    Raises ExportError when it holds no usable configuration or weights: no config.json, another
    architecture, a text-only model, a missing shard, rotary scaling or a sliding window, or an
    adapter that was made for another base.
    """
    folder = checkpoint_folder(model)
    config = _config(folder)
    weights: WeightSource = Weights(folder)
    if adapter is not None:
        weights = AdaptedWeights(weights, adapter)
    return describe_checkpoint(folder, config, weights)


def describe_checkpoint(
    folder: Path, config: Qwen2VLConfig | Qwen2_5_VLConfig, weights: WeightSource
) -> Checkpoint:
    """Gather a checkpoint's facts; raises ExportError for an architecture that is not supported."""
    text, vision = config.text_config, config.vision_config
    assert isinstance(text, PreTrainedConfig)
    assert isinstance(vision, PreTrainedConfig)
    if text.rope_parameters["rope_type"] != "default":
        raise ExportError(
            f"rotary scaling {text.rope_parameters['rope_type']!r} is not supported; "
            "remove it from config.json"
        )
    if "sliding_attention" in text.layer_types:
        raise ExportError("sliding-window attention is not supported; set use_sliding_window false")
    text_facts = _text_facts(text)
    if text_facts.head_dim % 16:
        raise ExportError(
            f"head size {text_facts.head_dim} is not a multiple of 16, which attention needs"
        )
    tied = bool(config.tie_word_embeddings)
    return Checkpoint(
        folder=folder,
        config=config,
        family=config.model_type,
        text=text_facts,
        vision=_vision_facts(vision),
        tied=tied,
        norm_epsilon=float(text.rms_norm_eps),
        text_activation=str(text.hidden_act),
        vision_activation=str(vision.hidden_act),
        image_token_id=int(config.image_token_id),
        stop=_stop_ids(folder, text),
        weights=weights,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint; raises ExportError when it is missing or malformed."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(
            f"{path.parent} has no {path.name}; give a complete checkpoint folder"
        ) from None
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read {path}: {error}") from None
    if not isinstance(data, dict):
        raise ExportError(f"{path} does not hold a JSON object")
    return data


def _config(folder: Path) -> Qwen2VLConfig | Qwen2_5_VLConfig:
    data = read_json(folder / "config.json")
    family = data.get("model_type")
    if family not in FAMILIES:
        kind = "architecture" if "vision_config" in data else "text-only or unknown architecture"
        raise ExportError(f"{kind} {family!r} is not supported; {', '.join(FAMILIES)} are")
    try:
        return FAMILIES[family].from_dict(data)
    except Exception as error:
        summary = " ".join(str(error).split())
        raise ExportError(f"{folder / 'config.json'} is malformed: {summary}") from None


def _text_facts(text: PreTrainedConfig) -> TextFacts:
    return TextFacts(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        vocab=text.vocab_size,
        max_context=text.max_position_embeddings,
        rope_theta=float(text.rope_parameters["rope_theta"]),
        mrope_section=tuple(text.rope_parameters["mrope_section"]),
    )


def _vision_facts(vision: PreTrainedConfig) -> VisionFacts:
    windowed = hasattr(vision, "window_size")
    hidden = vision.hidden_size if windowed else vision.embed_dim
    full = vision.fullatt_block_indexes if windowed else range(vision.depth)
    return VisionFacts(
        hidden=hidden,
        layers=vision.depth,
        heads=vision.num_heads,
        head_dim=hidden // vision.num_heads,
        channels=vision.in_channels,
        patch=vision.patch_size,
        temporal=vision.temporal_patch_size,
        merge=vision.spatial_merge_size,
        window=vision.window_size if windowed else 0,
        full_blocks=tuple(full),
        rope_theta=float(vision.rope_parameters["rope_theta"]),
    )


def _stop_ids(folder: Path, text: PreTrainedConfig) -> tuple[int, ...]:
    generation = folder / "generation_config.json"
    stop = read_json(generation).get("eos_token_id") if generation.is_file() else None
    stop = text.eos_token_id if stop is None else stop
    ids = [stop] if isinstance(stop, int) else list(stop or ())
    return tuple(i for i in ids if i < text.vocab_size)


def tensor_files(folder: Path) -> dict[Path, list[str]]:
    """Each safetensors file with the tensor names an index gives it (none without an index)."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = folder / "model.safetensors"
        if not single.is_file():
            raise ExportError(
                f"{folder} has no model.safetensors; give a complete checkpoint folder"
            )
        return {single: []}
    files: dict[Path, list[str]] = {}
    try:
        places = list(read_json(index)["weight_map"].items())
    except (KeyError, AttributeError):
        raise ExportError(f"{index} has no weight_map; download it again") from None
    for name, shard in places:
        files.setdefault(folder / str(shard), []).append(name)
    for path in files:
        if not path.is_file():
            raise ExportError(f"shard {path.name} is missing from {folder}; download it again")
    return files
