"""Presets of our own models: true Qwen2.5-VL checkpoints, only smaller."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from export.student.dct import dct_patch_kernels
from idetex_edge.errors import ExportError

HEAD_DIM: Final = 64
MROPE_SECTION: Final = (8, 12, 12)
ROPE_THETA: Final = 30.0
"""Low, since a picture is at most some dozens of cells wide: M-RoPE gives the slowest frequencies
to width, and with the usual base of 10,000 or more a whole picture turns them by less than a tenth
of a radian, so that a small model cannot tell left from right."""

IMAGE_MEAN: Final = (0.5, 0.5, 0.5)
IMAGE_STD: Final = (0.5, 0.5, 0.5)
MIN_PIXELS: Final = 4 * 28 * 28
MAX_PIXELS: Final = 640 * 28 * 28


@dataclass(frozen=True, slots=True)
class Preset:
    """The sizes of one model; attention heads are 64 wide everywhere."""

    vision_depth: int
    vision_width: int
    vision_mlp: int
    full_attention_blocks: tuple[int, ...]
    text_depth: int
    text_width: int
    text_mlp: int
    kv_heads: int


PRESETS: Final = {
    "nano": Preset(6, 192, 512, (2, 5), 6, 256, 704, 2),
    "mini": Preset(8, 384, 1024, (3, 7), 8, 512, 1408, 4),
}


def configure(preset: Preset, token_ids: dict[str, int], vocabulary: int) -> Qwen2_5_VLConfig:
    """The Hugging Face configuration of a preset; `token_ids` maps special tokens to ids."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": preset.text_width,
            "intermediate_size": preset.text_mlp,
            "num_hidden_layers": preset.text_depth,
            "num_attention_heads": preset.text_width // HEAD_DIM,
            "num_key_value_heads": preset.kv_heads,
            "max_position_embeddings": 4096,
            "rope_theta": ROPE_THETA,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROPE_THETA,
                "mrope_section": list(MROPE_SECTION),
            },
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": token_ids["<|im_end|>"],
            "pad_token_id": token_ids["<|endoftext|>"],
        },
        vision_config={
            "depth": preset.vision_depth,
            "hidden_size": preset.vision_width,
            "intermediate_size": preset.vision_mlp,
            "num_heads": preset.vision_width // HEAD_DIM,
            "out_hidden_size": preset.text_width,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": list(preset.full_attention_blocks),
        },
        image_token_id=token_ids["<|image_pad|>"],
        video_token_id=token_ids["<|video_pad|>"],
        vision_start_token_id=token_ids["<|vision_start|>"],
        vision_end_token_id=token_ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def sizes_of(config: Qwen2_5_VLConfig) -> Preset:
    """The sizes of a configuration that `configure` made."""
    vision: Any = config.vision_config
    text: Any = config.text_config
    return Preset(
        vision_depth=vision.depth,
        vision_width=vision.hidden_size,
        vision_mlp=vision.intermediate_size,
        full_attention_blocks=tuple(vision.fullatt_block_indexes),
        text_depth=text.num_hidden_layers,
        text_width=text.hidden_size,
        text_mlp=text.intermediate_size,
        kv_heads=text.num_key_value_heads,
    )


def create(config: Qwen2_5_VLConfig, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """A fresh model; its patch embedding starts from frequencies, not from noise (`dct.py`)."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    kernel = model.model.visual.patch_embed.proj.weight
    with torch.no_grad():
        frames = kernel.shape[2]
        kernels = dct_patch_kernels(kernel.shape[0], kernel.shape[-1])
        kernel.copy_((kernels / frames)[:, :, None].expand_as(kernel))
    return model


def weights_under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names begin with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def trained_model(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    """The model of a checkpoint folder, in float32."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def require_rotary_base(folder: Path) -> None:
    """Raise ExportError when a checkpoint's language model turns positions by another base.

    Under our rotary tables it would say nothing.
    """
    text: Any = Qwen2_5_VLConfig.from_pretrained(folder).text_config
    if (base := text.rope_parameters["rope_theta"]) != ROPE_THETA:
        raise ExportError(
            f"the language model of {folder} was trained with rope_theta {base:g}, those of our "
            f"presets with {ROPE_THETA:g}; give a checkpoint that this version made"
        )
