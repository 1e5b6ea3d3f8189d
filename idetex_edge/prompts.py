r"""Prompts as data: what a model was trained to be asked, one entry for each task.

A checkpoint carries them in `prompts.json`, its bundle in the manifest. A prompt is laid out in
Qwen's chat format, picture inside the user's turn::

    <|im_start|>system\n{system}<|im_end|>\n
    <|im_start|>user\n{before_image}<|vision_start|>PICTURE<|vision_end|>{question}<|im_end|>\n
    <|im_start|>assistant\n{answer_prefix}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from idetex_edge.errors import BundleError, RequestError
from idetex_edge.vocabulary import IM_END, IM_START, VISION_END, VISION_START

TASKS: Final = (
    "score",
    "grounding",
    "region",
    "locate",
    "choice",
    "question",
    "description",
    "single",
    "brief",
)
OPTIONAL_TASKS: Final = frozenset(("question", "single"))
"""Open questions, and the assessment of one distortion: not every model has learnt them."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """How one task is put to the model.

    Fields in braces are filled in for each request: `{columns}` and `{rows}` (the picture's size
    in merged vision tokens) in `before_image`; `{region}`, `{distortion}`, `{question}` and
    `{options}` in `question`.
    """

    system: str
    question: str
    before_image: str = ""
    answer_prefix: str = ""

    def head(self, columns: int, rows: int) -> str:
        """Everything in front of the picture's tokens, `<|vision_start|>` included."""
        before = self.before_image.format(columns=columns, rows=rows)
        return f"{IM_START}system\n{self.system}{IM_END}\n{IM_START}user\n{before}{VISION_START}"

    def tail(self, **fields: str) -> str:
        """Everything behind the picture's tokens, up to where the model's answer begins."""
        question = self.question.format(**fields)
        return f"{VISION_END}{question}{IM_END}\n{IM_START}assistant\n{self.answer_prefix}"


def options_text(options: Sequence[str]) -> str:
    """Lay out multiple-choice options as ViDA-UGC does: `A. ...`, `B. ...`, a line each."""
    return "\n".join(f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options))


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts of one model, by task name (see `TASKS`)."""

    prompts: Mapping[str, Prompt]

    def __getitem__(self, task: str) -> Prompt:
        """The prompt of a task; raises RequestError when the model has not learnt it."""
        if task not in self.prompts:
            known = ", ".join(self.prompts)
            raise RequestError(f"this model has not learnt the task {task!r}, but only {known}")
        return self.prompts[task]

    def __contains__(self, task: str) -> bool:
        return task in self.prompts

    def to_dict(self) -> dict[str, dict[str, str]]:
        """The JSON form, as stored in `prompts.json` and in the manifest."""
        return {task: asdict(prompt) for task, prompt in self.prompts.items()}

    @classmethod
    def from_dict(cls, data: object) -> PromptSet:
        """Read the JSON form; raises BundleError when a task or field is missing or unknown.

        `OPTIONAL_TASKS` may be missing.
        """
        if not isinstance(data, dict) or set(data) | OPTIONAL_TASKS != set(TASKS):
            needed = [task for task in TASKS if task not in OPTIONAL_TASKS]
            raise BundleError(
                f"prompts must define the tasks {', '.join(needed)}; besides them may stand only "
                f"{', '.join(sorted(OPTIONAL_TASKS))}"
            )
        try:
            return cls({task: Prompt(**fields) for task, fields in data.items()})
        except TypeError as error:
            raise BundleError(f"prompts have a missing or unknown field: {error}") from None
