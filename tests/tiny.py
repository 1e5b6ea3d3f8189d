"""Tiny checkpoints with random weights, complete with tokenizer, for tests to convert and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from edit_json import edit_json
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from idetex_edge.vocabulary import (
    BOX_END,
    BOX_START,
    IM_END,
    IM_START,
    IMAGE_PAD,
    LEVELS,
    OBJECT_REF_END,
    OBJECT_REF_START,
    VISION_END,
    VISION_START,
)

PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": 28 * 28 * 4,
    "max_pixels": 28 * 28 * 36,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
}
MARKERS = (
    *("<|endoftext|>", IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, "<|video_pad|>"),
    *(OBJECT_REF_START, OBJECT_REF_END, BOX_START, BOX_END),
)


def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE with the Qwen and ViDA markers, and each level one token behind a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([" " + level for level in LEVELS] * 20, trainer)
    tokenizer.add_special_tokens([AddedToken(m, special=True, normalized=False) for m in MARKERS])
    return tokenizer


def text_config(tokenizer: Tokenizer, **changes: object) -> dict[str, Any]:
    """Text settings of the tiny models: 4 heads of 64 over 2, M-RoPE as in the nano model."""
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 256,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(IM_END),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [8, 12, 12],
        },
    } | changes


def token_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids of picture tokens, for the outer configuration."""
    return {
        "image_token_id": tokenizer.token_to_id(IMAGE_PAD),
        "video_token_id": tokenizer.token_to_id("<|video_pad|>"),
        "vision_start_token_id": tokenizer.token_to_id(VISION_START),
        "vision_end_token_id": tokenizer.token_to_id(VISION_END),
    }


def save_qwen2_5_vl(
    folder: Path, *, tied: bool = True, text: dict[str, Any] | None = None, **vision: object
) -> Path:
    """Save a random Qwen2.5-VL: three vision blocks of 64, windows of 112 px, the last one full."""
    tokenizer = tiny_tokenizer()
    texts = text_config(tokenizer, **(text or {}))
    visions = {
        "depth": 3,
        "hidden_size": 64,
        "num_heads": 1,
        "intermediate_size": 96,
        "out_hidden_size": texts["hidden_size"],
        "window_size": 112,
        "fullatt_block_indexes": [2],
    } | vision
    config = Qwen2_5_VLConfig(
        text_config=texts,
        vision_config=visions,
        tie_word_embeddings=tied,
        **token_config(tokenizer),
    )
    return _save(folder, Qwen2_5_VLForConditionalGeneration(config), tokenizer)


def save_qwen2_vl(
    folder: Path, *, tied: bool = True, text: dict[str, Any] | None = None, **vision: object
) -> Path:
    """Save a random Qwen2-VL: two vision blocks of 64, no windows."""
    tokenizer = tiny_tokenizer()
    texts = text_config(tokenizer, **(text or {}))
    visions = {
        "depth": 2,
        "embed_dim": 64,
        "num_heads": 1,
        "mlp_ratio": 2,
        "hidden_size": texts["hidden_size"],
    } | vision
    config = Qwen2VLConfig(
        text_config=texts,
        vision_config=visions,
        tie_word_embeddings=tied,
        **token_config(tokenizer),
    )
    return _save(folder, Qwen2VLForConditionalGeneration(config), tokenizer)


def ask_briefly(folder: Path, context: int | None = None) -> Path:
    """Give a saved model nano's short prompts, and as little context as is asked for."""
    prompts = Path(__file__).parents[1] / "export" / "prompts" / "nano.json"
    (folder / "prompts.json").write_text(prompts.read_text())
    if context is not None:
        edit_json(folder / "config.json", {("text_config", "max_position_embeddings"): context})
    return folder


def _save(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer) -> Path:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Wide enough that attention is not uniform and every bias and norm matters.
            value.copy_(torch.randn_like(value) * 0.05 + (1.0 if "norm" in name else 0.0))
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder
