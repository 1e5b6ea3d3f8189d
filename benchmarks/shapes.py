"""The shapes of public checkpoints, without their weights."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from accelerate import init_empty_weights
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from export.graphs.rows import Array
from export.names import our_name

NANO: Final = Path(__file__).parents[1] / "checkpoints" / "nano"
"""Where tokenizer, preprocessor and prompts are taken from."""

_VISION: Final = {"depth": 32, "num_heads": 16, "patch_size": 14}
_VISION_2: Final = {**_VISION, "embed_dim": 1280, "mlp_ratio": 4}
_VISION_2_5: Final = {
    **_VISION,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_CONTEXT: Final = 4096
_SPREAD: Final = 0.02
_STOCK: Final = 2**20


def _text(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, words: int) -> Any:  # noqa: ANN401
    return {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": words,
        "max_position_embeddings": _CONTEXT,
    }


TEXT: Final[Mapping[str, dict[str, Any]]] = {
    "2B": _text(1536, 8960, 28, 12, 2, 151_936),
    "3B": _text(2048, 11008, 36, 16, 2, 151_936),
    "7B": _text(3584, 18944, 28, 28, 4, 152_064),
}
"""Language models by name: Qwen2-VL-2B, Qwen2.5-VL-3B, Qwen2-VL-7B."""

_NEWER: Final = ("3B",)
_TIED: Final = ("2B", "3B")


def config_of(shape: str) -> Any:  # noqa: ANN401 (two classes that share no useful base)
    """The configuration of a shape, with nano's special tokens."""
    own = json.loads((NANO / "config.json").read_text())
    tokens = {name: own[name] for name in own if name.endswith("_token_id")}
    text = TEXT[shape]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    common: dict[str, Any] = {
        "text_config": {
            **text,
            "rope_parameters": rope,
            "bos_token_id": None,
            "eos_token_id": own["text_config"]["eos_token_id"],
        },
        "tie_word_embeddings": shape in _TIED,
        **tokens,
    }
    if shape in _NEWER:
        vision = {**_VISION_2_5, "out_hidden_size": text["hidden_size"]}
        return Qwen2_5_VLConfig(vision_config=vision, **common)
    return Qwen2VLConfig(vision_config={**_VISION_2, "hidden_size": text["hidden_size"]}, **common)


def tensors_of(shape: str) -> dict[str, Sequence[int]]:
    """Every tensor of a checkpoint of that shape, by transformers' name."""
    newer = Qwen2_5_VLForConditionalGeneration
    kind: Any = newer if shape in _NEWER else Qwen2VLForConditionalGeneration
    with init_empty_weights(include_buffers=False):
        model = kind(config_of(shape))
    names = {name: list(value.shape) for name, value in model.named_parameters()}
    return {n: size for n, size in names.items() if shape not in _TIED or n != "lm_head.weight"}


class Shapes:
    """A checkpoint's tensors as shapes alone: enough to tell sizes."""

    def __init__(self, shape: str) -> None:
        self.identity = shape
        self._sizes = {our_name(name): tuple(size) for name, size in tensors_of(shape).items()}

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, by our name."""
        return self._sizes[name]

    def read(self, name: str) -> Array:
        """Shapes alone hold no numbers; raises NotImplementedError."""
        raise NotImplementedError(name)


class RandomWeights(Shapes):
    """A checkpoint's tensors, drawn when they are read; the same every time.

    A tensor is one row of random numbers after another from a common stock, each row from a place
    of its own: drawing billions of them one by one would take minutes.
    """

    def read(self, name: str) -> Array:
        """A tensor by our name, float32, norms about one and the rest about nothing."""
        shape = self.shape(name)
        chance = np.random.default_rng(zlib.crc32(name.encode()))
        width = shape[-1]
        stock = chance.standard_normal(4 * width + _STOCK, dtype=np.float32) * np.float32(_SPREAD)
        places = chance.integers(0, len(stock) - width, int(np.prod(shape[:-1])))
        values = np.empty((len(places), width), np.float32)
        for row, place in zip(values, places, strict=True):
            row[:] = stock[place : place + width]
        return values.reshape(shape) + np.float32(len(shape) == 1 and "norm" in name)
