"""The model while it trains: the student itself and the heads that help it learn."""

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from export.student.architecture import PRESETS, configure, create
from export.student.tokenizer import special_ids
from export.training.batched_language import hidden_states
from export.training.batched_vision import encode
from export.training.dense_head import DenseHead
from export.training.packing import Packed


@dataclass(frozen=True, slots=True)
class Outputs:
    """Logits of packed questions: answers [A, vocabulary], levels [B, vocabulary], options [O].

    `dense` [B, cells, 10, 3] are the dense head's.
    """

    answers: Tensor
    levels: Tensor
    options: Tensor
    dense: Tensor


class Student(nn.Module):
    """A preset's whole model with two heads that are dropped afterwards.

    `head` keeps the vision tower honest (`dense_head.py`). `option_head` tells from a middle
    layer, at the end of each option of a multiple-choice question, whether it is the answer: what
    the letter has to be read from. Without it, letters stay at chance for thousands of steps.
    """

    def __init__(self, preset: str, tokenizer: Tokenizer) -> None:
        super().__init__()
        sizes = PRESETS[preset]
        config = configure(sizes, special_ids(tokenizer), tokenizer.get_vocab_size())
        self.model: Qwen2_5_VLForConditionalGeneration = create(config)
        self.head = DenseHead(sizes.text_width)
        self.option_head = nn.Sequential(
            nn.LayerNorm(sizes.text_width), nn.Linear(sizes.text_width, 1)
        )

    def forward(self, pixels: Tensor, packed: Packed, learn_to_see: bool = True) -> Outputs:
        """Run the model over packed questions; the tower learns only when asked to."""
        with torch.set_grad_enabled(learn_to_see and torch.is_grad_enabled()):
            features = encode(self.model.model.visual, pixels)
        text = self.model.model.language_model
        embedded = [text.embed_tokens(block.ids) for block in packed.blocks]
        prefix = embedded[0]
        embedded[0] = torch.cat(
            (
                prefix[:, : packed.image.start],
                features.to(prefix.dtype),
                prefix[:, packed.image.stop :],
            ),
            dim=1,
        )
        joined = torch.cat([part.flatten(0, 1) for part in embedded])
        hidden, middle = hidden_states(text, joined, packed.blocks)
        return Outputs(
            answers=self.model.lm_head(hidden[packed.rows]),
            levels=self.model.lm_head(hidden[packed.level_rows]),
            options=self.option_head(middle[packed.option_rows])[:, 0],
            dense=self.head(features),
        )

    def load_checkpoint(self, folder: Path) -> None:
        """Take the weights of a checkpoint folder; the heads, which it lacks, start afresh."""
        trained = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.model.load_state_dict(trained.state_dict())

    def load_tower(self, vision: Path) -> None:
        """Take the averaged tower and dense head of stage one (`vision.pt`)."""
        weights = torch.load(vision, weights_only=True)["average"]["weights"]
        tower = {k.removeprefix("tower."): v for k, v in weights.items() if k.startswith("tower.")}
        head = {k.removeprefix("head."): v for k, v in weights.items() if k.startswith("head.")}
        self.model.model.visual.load_state_dict(tower)
        self.head.load_state_dict(head)
