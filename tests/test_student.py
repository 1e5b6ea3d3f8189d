"""A model at its start: tokenizer and patch kernels."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from export.student.dct import dct_patch_kernels
from export.student.tokenizer import SPECIAL_TOKENS, write_tokenizer


def test_every_number_is_one_token_and_files_load(
    small_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for number in range(1001):
        assert len(small_tokenizer.encode(str(number), add_special_tokens=False).ids) == 1
    write_tokenizer(small_tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Thus (12,345) \u00fc <|box_start|>(0,1000)<|box_end|>\n"
    ids = loaded.encode(text, add_special_tokens=False)
    assert ids == small_tokenizer.encode(text, add_special_tokens=False).ids
    assert loaded.decode(ids) == text
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}]
    chat = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert set(SPECIAL_TOKENS) <= set(loaded.get_vocab())


def test_patch_kernels_are_a_basis_of_frequencies() -> None:
    kernels = dct_patch_kernels(192, 14)
    assert kernels.shape == (192, 3, 14, 14)
    assert torch.linalg.matrix_rank(kernels.flatten(1)) == 192
    grey = torch.full((3, 14, 14), 0.3)
    response = (kernels * grey).sum((1, 2, 3)).abs()
    assert int((response > 1e-4).sum()) == 1
