"""Pack all questions about a batch of pictures, as the runtime forks them: one shared prefix.

Each picture's [system + picture] is a row of the prefix block. Every question with its answer is
a row of the block whose length it fits; it sees its picture's prefix and itself, begins at the
position right behind the picture, and knows nothing of the other questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from export.student.architecture import HEAD_DIM, MROPE_SECTION, ROPE_THETA
from export.supervision.example import Example
from idetex_edge.positions import mrope_positions, mrope_rotary
from idetex_edge.prompts import PromptSet
from idetex_edge.vocabulary import BOX_END, BOX_SCALE, BOX_START, IM_END, IMAGE_PAD, LEVELS

TASK_WEIGHTS: Final = {
    "score": 3.0,
    "grounding": 1.0,
    "region": 1.0,
    "locate": 0.6,
    "choice": 4.0,
    "question": 1.0,
    "description": 0.7,
    "single": 0.5,
    "brief": 0.3,
}
"""What a token of each task's answer weighs in the loss."""

NUMBER_WEIGHT: Final = 3.0
"""What the numbers of boxes weigh besides: the words around them are soon known."""

STOP_WEIGHT: Final = 0.4
"""What saying that nothing more is wrong weighs besides, so that a model does not say it as soon as
it is likelier than any one distortion: more is found at the price of some false alarms."""

LENGTHS: Final = (32, 48, 64, 80, 112, 160, 240, 352)
"""The lengths of question blocks; rows are padded up to the first that holds them."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one length: `ids` [N, L] and the rotary tables [L, head / 2] they share.

    `picture` [N] says whose prefix a row continues; None in the prefix block itself. `used` [N, L]
    is False where a row is padded.
    """

    ids: Tensor
    used: Tensor
    cos: Tensor
    sin: Tensor
    picture: Tensor | None


@dataclass(frozen=True, slots=True)
class Packed:
    """The prefix block, the question blocks, and what is learnt from them.

    Hidden states of all blocks, flattened and joined in order, are indexed by `rows` [A], whose
    next tokens are `targets` [A] with `weights` [A]; `repeated` [A] marks the numbers of boxes that
    stand in the question or earlier in the answer; `level_rows` [B] and `level_targets` [B, 5]
    are for the score task; `option_rows` [O] end the options of multiple-choice questions, of
    which `option_right` [O] (0 or 1) are the answers. `boxes` [K, 4] are all boxes of the answers,
    in 0..1000, and `box_rows` [K, 4] the tokens that their numbers follow. `image` is the slice of
    a prefix row that the picture fills, `grid` its (rows, columns) there.
    """

    blocks: tuple[Block, ...]
    image: slice
    rows: Tensor
    targets: Tensor
    weights: Tensor
    repeated: Tensor
    level_rows: Tensor
    level_targets: Tensor
    option_rows: Tensor
    option_right: Tensor
    boxes: Tensor
    box_rows: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Segment:
    example: Example
    picture: int
    tail: list[int]
    answer: list[int]
    weights: list[float]
    option_ends: list[int]


_Placed = tuple[tuple[int, ...], list[int]]
"""A box's four numbers, and where they stand."""


class Packer:
    """Turns examples into `Packed` blocks, with one tokenizer and one set of prompts.

    weights: what a token of each task's answer weighs in the loss. Only for prompt sets in which
    every task has the same words in front of the picture.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompts: PromptSet,
        weights: Mapping[str, float] = TASK_WEIGHTS,
    ) -> None:
        self._weights = weights
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._image = self.id_of(IMAGE_PAD)
        self._end = self.id_of(IM_END)
        self.level_ids = torch.tensor([self.id_of(f"\u0120{level}") for level in LEVELS])
        self.number_ids = torch.tensor([self.id_of(str(n)) for n in range(BOX_SCALE + 1)])
        self._numbers = {token: n for n, token in enumerate(self.number_ids.tolist())}
        self._box_start, self._box_end = self.id_of(BOX_START), self.id_of(BOX_END)

    def id_of(self, token: str) -> int:
        """The id of a token that must exist."""
        found = self._tokenizer.token_to_id(token)
        assert found is not None, token
        return found

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def _segments(self, examples: Sequence[Sequence[Example]]) -> list[_Segment]:
        flat = [(picture, example) for picture, row in enumerate(examples) for example in row]
        texts = [self._prompts[e.task].tail(**e.fields) for _, e in flat]
        tails = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        answers = self._tokenizer.encode_batch(
            [example.answer for _, example in flat], add_special_tokens=False
        )
        return [
            _Segment(
                example,
                picture,
                tail.ids,
                [*answer.ids, self._end],
                _answer_weights(example, answer.offsets, self._weights[example.task]),
                _option_ends(example, text, tail.offsets),
            )
            for (picture, example), text, tail, answer in zip(
                flat, texts, tails, answers, strict=True
            )
            if len(tail.ids) + len(answer.ids) <= LENGTHS[-1]
        ]

    def _factor(self, token: int) -> float:
        return NUMBER_WEIGHT if token in self._numbers else 1.0

    def _boxes(self, tokens: Sequence[int]) -> list[_Placed]:
        """The boxes of a text's tokens; one that has not four numbers is none."""
        found: list[_Placed] = []
        for start in (i for i, token in enumerate(tokens) if token == self._box_start):
            inside = takewhile(lambda i: tokens[i] != self._box_end, range(start, len(tokens)))
            places = [i for i in inside if tokens[i] in self._numbers]
            if len(places) == 4:
                found.append((tuple(self._numbers[tokens[i]] for i in places), places))
        return found

    def pack(self, examples: Sequence[Sequence[Example]], rows: int, columns: int) -> Packed:
        """Pack each picture's examples; pictures are rows x columns merged tokens."""
        head = self._encode([self._prompts["score"].head(columns, rows)])[0]
        prefix = [*head, *([self._image] * (rows * columns))]
        positions, after = mrope_positions(
            prefix, image_token=self._image, grid=(2 * rows, 2 * columns), merge_size=2
        )
        tiled = np.tile(prefix, (len(examples), 1))
        blocks = [_block(tiled, np.ones(tiled.shape, np.bool_), positions, None)]
        segments = self._segments(examples)
        at = blocks[0].ids.numel()
        learnt: list[tuple[int, int, float, bool]] = []
        levels: list[tuple[int, tuple[float, ...]]] = []
        options: list[tuple[int, bool]] = []
        boxes: list[_Placed] = []
        shorter = 0
        for length in LENGTHS:
            fitting = [s for s in segments if shorter < len(s.tail) + len(s.answer) - 1 <= length]
            shorter = length
            if not fitting:
                continue
            ids = np.zeros((len(fitting), length), np.int64)
            used = np.zeros(ids.shape, np.bool_)
            owner = np.zeros(len(ids), np.int64)
            for row, segment in enumerate(fitting):
                tokens = [*segment.tail, *segment.answer[:-1]]
                ids[row, : len(tokens)], owner[row] = tokens, segment.picture
                used[row, : len(tokens)] = True
                start = at + row * length
                first = start + len(segment.tail) - 1
                options += [
                    (start + end, segment.example.answer == chr(ord("A") + index))
                    for index, end in enumerate(segment.option_ends)
                ]
                if segment.example.levels is not None:
                    levels.append((first, segment.example.levels))
                    continue
                told = self._boxes(segment.answer)
                boxes += [(box, [first + i for i in places]) for box, places in told]
                repeated = _said_again(self._boxes(segment.tail), told)
                weighed = zip(segment.answer, segment.weights, strict=True)
                learnt += [
                    (first + i, token, weight * self._factor(token), i in repeated)
                    for i, (token, weight) in enumerate(weighed)
                ]
            line = np.broadcast_to(after + np.arange(length), (3, length))
            blocks.append(_block(ids, used, np.ascontiguousarray(line), torch.from_numpy(owner)))
            at += ids.size
        where, targets, weights, again = zip(*learnt, strict=True) if learnt else ((), (), (), ())
        return Packed(
            blocks=tuple(blocks),
            image=slice(len(head), len(prefix)),
            rows=torch.tensor(where, dtype=torch.long),
            targets=torch.tensor(targets, dtype=torch.long),
            weights=torch.tensor(weights),
            repeated=torch.tensor(again, dtype=torch.bool),
            level_rows=torch.tensor([row for row, _ in levels], dtype=torch.long),
            level_targets=torch.tensor([target for _, target in levels]).view(-1, len(LEVELS)),
            option_rows=torch.tensor([row for row, _ in options], dtype=torch.long),
            option_right=torch.tensor([right for _, right in options], dtype=torch.float32),
            boxes=torch.tensor([box for box, _ in boxes], dtype=torch.long).view(-1, 4),
            box_rows=torch.tensor([at for _, at in boxes], dtype=torch.long).view(-1, 4),
            grid=(rows, columns),
        )


def _said_again(asked: Sequence[_Placed], told: Sequence[_Placed]) -> set[int]:
    """Where the numbers of an answer's boxes stand that were in the question or told before."""
    known = {box for box, _ in asked}
    again: set[int] = set()
    for box, places in told:
        again.update(places if box in known else ())
        known.add(box)
    return again


def _answer_weights(
    example: Example, offsets: Sequence[tuple[int, int]], weight: float
) -> list[float]:
    """What each token of an answer and its end weighs in the loss."""
    begins = [*(start for start, _ in offsets), len(example.answer)]
    weights = [weight] * len(begins)
    for stop in example.stops:
        weights[next(i for i, begin in enumerate(begins) if begin >= stop)] *= STOP_WEIGHT
    return weights


def _option_ends(example: Example, text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The last token of each option of a multiple-choice question in its prompt's text."""
    options = example.fields.get("options")
    if options is None:
        return []
    ends: list[int] = []
    at = text.index(options)
    for line in options.splitlines():
        at += len(line)
        ends.append(max(i for i, (_, stop) in enumerate(offsets) if stop <= at))
        at += 1
    return ends


def _block(
    ids: np.ndarray, used: np.ndarray, positions: np.ndarray, picture: Tensor | None
) -> Block:
    cos, sin = mrope_rotary(positions, head_size=HEAD_DIM, sections=MROPE_SECTION, theta=ROPE_THETA)
    return Block(*map(torch.from_numpy, (ids, used, cos, sin)), picture=picture)
