"""A larger preset that begins as a smaller one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from export.student.architecture import PRESETS, configure, create, require_rotary_base
from export.student.growing import grown, weights_for
from export.student.tokenizer import special_ids
from idetex_edge.errors import ExportError


@pytest.fixture(scope="module")
def small(small_tokenizer: Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """nano with every tensor at random, so that none is at rest where growing could miss it."""
    ids, size = special_ids(small_tokenizer), small_tokenizer.get_vocab_size()
    model = create(configure(PRESETS["nano"], ids, size)).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture(scope="module")
def large(
    small: Qwen2_5_VLForConditionalGeneration, small_tokenizer: Tokenizer
) -> Qwen2_5_VLForConditionalGeneration:
    """mini, grown from it."""
    ids, size = special_ids(small_tokenizer), small_tokenizer.get_vocab_size()
    model = create(configure(PRESETS["mini"], ids, size)).eval()
    found = grown(small.state_dict(), PRESETS["nano"], PRESETS["mini"])
    assert not model.load_state_dict(found, strict=False).unexpected_keys
    return model


def _logits(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: Tokenizer, pixels: torch.Tensor
) -> torch.Tensor:
    ids = special_ids(tokenizer)
    image = [ids["<|vision_start|>"], *[ids["<|image_pad|>"]] * 24, ids["<|vision_end|>"]]
    said = torch.tensor([[5, 6, *image, 7, 8, 9, 10]])
    grid = torch.tensor([[1, 8, 12]])
    kinds = (said == ids["<|image_pad|>"]).int()
    return model(
        input_ids=said, pixel_values=pixels, image_grid_thw=grid, mm_token_type_ids=kinds
    ).logits


def test_a_grown_model_says_the_same(
    small: Qwen2_5_VLForConditionalGeneration,
    large: Qwen2_5_VLForConditionalGeneration,
    small_tokenizer: Tokenizer,
) -> None:
    pixels = torch.randn(96, 3 * 2 * 14 * 14)
    with torch.no_grad():
        ours = _logits(large, small_tokenizer, pixels)
        theirs = _logits(small, small_tokenizer, pixels)
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.std())


def test_copies_learn_different_things(
    large: Qwen2_5_VLForConditionalGeneration, small_tokenizer: Tokenizer
) -> None:
    large.zero_grad()
    _logits(large, small_tokenizer, torch.randn(96, 1176)).square().mean().backward()
    width = PRESETS["nano"].text_mlp
    layers: Any = large.model.language_model.layers
    gradient: torch.Tensor = layers[1].mlp.gate_proj.weight.grad
    apart = (gradient[:width] - gradient[width:]).norm() / gradient.norm()
    assert float(apart) > 0.05
    between: torch.Tensor = layers[0].mlp.down_proj.weight.grad
    assert float(between.abs().max()) > 0


def test_the_same_preset_is_left_alone_and_others_are_refused(
    small: Qwen2_5_VLForConditionalGeneration, tmp_path: Path
) -> None:
    nano = PRESETS["nano"]
    small.save_pretrained(tmp_path)
    kept = weights_for(tmp_path, nano)
    assert all(torch.equal(kept[name], tensor) for name, tensor in small.state_dict().items())
    with pytest.raises(ExportError, match="same whole multiple"):
        weights_for(tmp_path, replace(PRESETS["mini"], text_mlp=1000))
    with pytest.raises(ExportError, match="full attention"):
        weights_for(tmp_path, replace(PRESETS["mini"], full_attention_blocks=(0, 7)))


def test_a_checkpoint_with_another_rotary_base_is_refused(
    small: Qwen2_5_VLForConditionalGeneration, tmp_path: Path
) -> None:
    small.save_pretrained(tmp_path)
    require_rotary_base(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["rope_parameters"]["rope_theta"] = 1e6
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=r"rope_theta 1e\+06, those of our presets with 30"):
        require_rotary_base(tmp_path)
