"""One thing in several wordings."""

from collections.abc import Sequence
from random import Random


class FirstWords(Random):
    """Randomness with which `worded` always takes the first wording."""


def worded(wordings: Sequence[str], random: Random) -> str:
    """One of several wordings of the same."""
    return wordings[0] if isinstance(random, FirstWords) else random.choice(wordings)


def listed(names: Sequence[str]) -> str:
    """One name, or several with commas and a last `and`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
