"""The model in training: its own weights, and heads that are dropped afterwards."""

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from export.student.architecture import (
    PRESETS,
    configure,
    create,
    require_rotary_base,
    weights_under,
)
from export.student.growing import weights_for
from export.student.tokenizer import special_ids
from export.training.batched_language import Trace, trace
from export.training.batched_vision import encode
from export.training.course import averaged_weights, put_into
from export.training.evidence import ABSENT, EVIDENCE, PRESENT, evidence_head
from export.training.known import GRADES
from export.training.packing import Packed
from export.training.pointing import place_head
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is made of packed questions.

    Logits: answers [A, vocabulary], levels [B, vocabulary], options [O]; `places`
    [B, cells, 2], where each cell is taken to lie; and the pass's `trace`.
    """

    answers: Tensor
    levels: Tensor
    options: Tensor
    places: Tensor
    trace: Trace


@dataclass(frozen=True, slots=True)
class Sight:
    """What is made of a batch of pictures, cells in raster order.

    seen: the tower's own features [B, cells, width]; evidence [B, cells, 35] of them; features
    [B, cells, width] that the language model reads.
    """

    seen: Tensor
    evidence: Tensor
    features: Tensor


def read_packed(
    model: Qwen2_5_VLForConditionalGeneration,
    features: Tensor,
    packed: Packed,
    told: bool = False,
) -> Trace:
    """Pass over packed questions about pictures with image features [B, cells, width].

    `told`: whether every layer's attention is wanted.
    """
    text = model.model.language_model
    embedded = [text.embed_tokens(block.ids) for block in packed.blocks]
    before, image, after = (
        embedded[0][:, : packed.image.start],
        features.to(embedded[0].dtype),
        embedded[0][:, packed.image.stop :],
    )
    embedded[0] = torch.cat((before, image, after), dim=1)
    joined = torch.cat([part.flatten(0, 1) for part in embedded])
    return trace(text, joined, packed.blocks, told)


class Student(nn.Module):
    """A preset's whole model, and what is folded into it or dropped afterwards.

    The language model reads image features of two parts. `witness` puts what the tower sees into
    evidence (`evidence.py`), which keeps it honest, and `testify` tells evidence to the language
    model, which learnt to read it before it saw; `bypass` hands on what no word was found for.
    All three are linear: `fold` takes them into the patch merger's last layer.
    `option_head` tells from a middle layer, at the end of each option of a multiple-choice
    question, whether it is the answer: what the letter has to be read from. Without it, letters
    stay at chance for thousands of steps. `place_head` tells from an early layer where a cell lies
    (`pointing.py`). `imitate`, where there is a teacher, maps what the tower sees to what the
    teacher's tower does.
    """

    def __init__(self, preset: str, tokenizer: Tokenizer, teacher_width: int = 0) -> None:
        super().__init__()
        self._sizes = sizes = PRESETS[preset]
        config = configure(sizes, special_ids(tokenizer), tokenizer.get_vocab_size())
        self.model: Qwen2_5_VLForConditionalGeneration = create(config)
        self.witness = evidence_head(sizes.text_width)
        self.testify = nn.Linear(EVIDENCE, sizes.text_width)
        self.speak_in_words(tokenizer)
        self.bypass = nn.Linear(sizes.text_width, sizes.text_width, bias=False)
        nn.init.zeros_(self.bypass.weight)
        self.option_head = nn.Sequential(
            nn.LayerNorm(sizes.text_width), nn.Linear(sizes.text_width, 1)
        )
        self.place_head = place_head(sizes.text_width)
        self.imitate = nn.Linear(sizes.text_width, teacher_width) if teacher_width else None

    def see(self, pixels: Tensor) -> Sight:
        """Look at normalised pixels [B, 3, H, W]."""
        seen = encode(self.model.model.visual, pixels)
        evidence = self.witness(seen)
        return Sight(seen, evidence, self.testify(evidence) + self.bypass(seen))

    def forward(self, features: Tensor, packed: Packed, told: bool = False) -> Outputs:
        """Read packed questions about pictures with image features [B, cells, width].

        `told`: whether the trace is to have every layer's attention.
        """
        passed = read_packed(self.model, features, packed, told)
        prefixes = packed.blocks[0].ids
        early = passed.early[: prefixes.numel()].unflatten(0, tuple(prefixes.shape))
        return Outputs(
            answers=self.model.lm_head(passed.last[packed.rows]),
            levels=self.model.lm_head(passed.last[packed.level_rows]),
            options=self.option_head(passed.middle[packed.option_rows])[:, 0],
            places=self.place_head(early[:, packed.image]),
            trace=passed,
        )

    def load_checkpoint(self, folder: Path) -> None:
        """Take the weights of a checkpoint folder, grown where it is of a smaller preset.

        Evidence and how it is told are folded into them (`unfolding.py`); the other heads start
        afresh. Raises ExportError where the checkpoint is not one of ours.
        """
        require_rotary_base(folder)
        self.model.load_state_dict(weights_for(folder, self._sizes), strict=False)

    @torch.no_grad()
    def speak_in_words(self, tokenizer: Tokenizer) -> None:
        """Let evidence of a distortion start as the embedding of the words that name it.

        Heads that match and copy words then find a distortion in the picture as they find it in a
        text. Its absence is nothing. Looks and quality start at random; so do differences between
        severities, since words for types and severities alone cannot tell which belongs to which.
        """
        table = self.model.model.language_model.embed_tokens.weight

        def meaning(words: str) -> Tensor:
            texts = (words.capitalize(), f" {words.lower()}")
            ids = [i for t in texts for i in tokenizer.encode(t, add_special_tokens=False).ids]
            return table[ids].mean(0)

        columns = [
            (meaning(kind) + meaning(severity)) / len(SEVERITIES)
            for kind in DISTORTIONS
            for severity in SEVERITIES
        ]
        words = torch.stack(columns, dim=1) / (PRESENT - ABSENT)
        weight = self.testify.weight
        nn.init.normal_(weight, std=0.3 * float(words.std()))
        weight[:, :GRADES] += words
        self.testify.bias.copy_(-ABSENT * weight[:, :GRADES].sum(1))

    def take_start(self, start: Path) -> None:
        """Take the weights that `unfolding.write_start` wrote, which have no `imitate`.

        Raises ExportError where they are of another version's student.
        """
        put_into(self, self._imitating() | torch.load(start, weights_only=True), start)

    def take_reading(self, reading: Path) -> None:
        """Take the averaged weights of the reading stage (`reading.pt`).

        It has no `imitate`. Raises ExportError where they are of another version's student.
        """
        put_into(self, self._imitating() | averaged_weights(reading), reading)

    def _imitating(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state_dict().items() if "imitate." in name}

    def take_tower(self, vision: Path) -> None:
        """Take the averaged tower and head of the vision stage (`vision.pt`).

        Raises ExportError where they are of another version's.
        """
        weights = averaged_weights(vision)
        for prefix, module in (("tower.", self.model.model.visual), ("head.", self.witness)):
            put_into(module, weights_under(prefix, weights), vision)

    @property
    def merger_output(self) -> nn.Linear:
        """The patch merger's last layer, which makes features of what the tower sees."""
        last = self.model.model.visual.merger.mlp[2]
        assert isinstance(last, nn.Linear)
        return last

    @torch.no_grad()
    def fold(self) -> None:
        """Take witness, testimony and bypass into the patch merger, which then says the same."""
        last = self.merger_output
        read = self.testify.weight @ self.witness.weight + self.bypass.weight
        shift = self.testify.weight @ self.witness.bias + self.testify.bias
        last.bias.copy_(read @ last.bias + shift)
        last.weight.copy_(read @ last.weight)
