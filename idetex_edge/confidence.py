"""How sure a model is of each box it wrote, from the probabilities of its decisions."""

from __future__ import annotations

from collections.abc import Sequence

from idetex_edge.vocabulary import BOX_END, BOX_START, OBJECT_REF_START


def box_confidences(pieces: Sequence[str], probabilities: Sequence[float]) -> list[float]:
    """A confidence 0..1 for each whole box of a grounding answer, in the order of the text.

    pieces: the answer's tokens as text, markers each a piece of their own. probabilities: what
    the model gave each among those allowed.
    A box's confidence is the probability of naming its type where it was named (and of going on
    to its severity, where another stood before), times that of drawing one more box where it is
    not the first. Severity words and coordinates do not count: a neighbouring thousandth is as
    right.
    """
    found: list[float] = []
    group = box = passage = 1.0
    # What stands between the last box and the next group or box, where decisions are made.
    words, deciding = "", True
    for piece, probability in zip(pieces, probabilities, strict=True):
        if piece == BOX_START:
            box, deciding = group * probability, False
        elif piece == BOX_END:
            found.append(box)
            words, passage, deciding = "", 1.0, True
        elif piece == OBJECT_REF_START:
            new_type = ":" in words
            group = (1.0 if new_type else group) * passage * probability
            deciding = False
        elif deciding:
            words += piece
            passage *= probability
    return found
