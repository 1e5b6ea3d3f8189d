"""One naming for a checkpoint's tensors, whichever generation of transformers wrote them."""

from typing import Final

_PREFIXES: Final = (
    ("model.visual.", "visual."),
    ("visual.", "visual."),
    ("model.language_model.", "text."),
    ("lm_head.", "head."),
    ("model.", "text."),
)
"""Names on disk to ours; the first match counts."""


def our_name(name: str) -> str:
    """Give our name of a tensor: `visual.*`, `text.*` or `head.weight`."""
    for theirs, ours in _PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
