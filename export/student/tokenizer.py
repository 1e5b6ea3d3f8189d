"""The students' own tokenizer: byte-level BPE of about 2,500 entries, in Qwen's file format.

Every integer 0..1000 is one token, so a box is always the same number of tokens; the markers of
Qwen and ViDA are special tokens; the rest is learnt from the questions and answers themselves.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from export.student.architecture import IMAGE_MEAN, IMAGE_STD, MAX_PIXELS, MIN_PIXELS
from idetex_edge.vocabulary import BOX_SCALE

SPECIAL_TOKENS: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

_SPLIT: Final = r"\d+| ?\p{L}+| ?[^\s\p{L}\p{N}]|\s+"
"""Numbers, words with the space before them, single punctuation marks, white space."""

_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], words: int = 1400) -> Tokenizer:
    """Learn about `words` merges from texts, then add those that make every number one token."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + words,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(_without_digits(texts), trainer)
    learnt = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = dict(learnt["vocab"])
    merges: list[tuple[str, str]] = [(left, right) for left, right in learnt["merges"]]
    for number in range(10, BOX_SCALE + 1):
        text = str(number)
        vocabulary.setdefault(text, len(vocabulary))
        merges.append((text[:-1], text[-1]))
        if len(text) == 3 and text[1] != "0":
            merges.append((text[0], text[1:]))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _without_digits(texts: Iterable[str]) -> Iterator[str]:
    drop = str.maketrans("", "", "0123456789")
    for text in texts:
        plain = text.translate(drop)
        for marker in SPECIAL_TOKENS:
            plain = plain.replace(marker, "\n")
        yield plain


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of the special tokens."""
    return {token: _id_of(tokenizer, token) for token in SPECIAL_TOKENS}


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None, token
    return found


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer, chat template and image processor files, as `from_pretrained` wants them."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:2] + SPECIAL_TOKENS[3:]),
        model_max_length=4096,
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(folder)
    processor: dict[str, Any] = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
