"""One question about a picture and the answer to learn."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """`fields` fill the task's prompt (`idetex_edge.prompts`); `answer` follows its prefix.

    `levels`, for the score task, are the probabilities of the five levels to learn instead of one
    answer. `stops` are the places in `answer`, in characters, where it says that nothing more is
    wrong with the picture.
    """

    task: str
    answer: str
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    levels: tuple[float, ...] | None = None
    stops: tuple[int, ...] = ()
