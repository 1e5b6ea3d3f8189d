"""The mean of checkpoints that went on from the same weights: often better than any of them.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", 2022. Checkpoints of separate beginnings have nothing in common
that a mean would keep.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from export.checkpoint import Checkpoint, open_checkpoint, tensor_files
from export.names import our_name
from export.tensors import TensorFile
from idetex_edge.errors import ExportError, OutputError
from idetex_edge.whole import whole_folder

_VISION: Final = "visual."


@dataclass(frozen=True, slots=True)
class Shares:
    """How much each checkpoint counts in the language model and in vision: tower and merger.

    Only ratios matter.
    """

    language: Sequence[float]
    vision: Sequence[float]

    @classmethod
    def parse(cls, count: int, language: str | None, vision: str | None) -> Shares:
        """Read shares that were written as `0.6,0.4`, of so many checkpoints.

        Without `language` all count alike, without `vision` as they do in the language model.
        Raises ExportError where something is no number.
        """
        said = _numbers(language) if language else [1.0] * count
        return cls(said, _numbers(vision) if vision else said)

    def of(self, tensor: str) -> list[float]:
        """The checkpoints' shares in a tensor by our name; together they are 1."""
        weights = self.vision if tensor.startswith(_VISION) else self.language
        return [weight / sum(weights) for weight in weights]


def _numbers(written: str) -> list[float]:
    try:
        return [float(part) for part in written.split(",")]
    except ValueError:
        raise ExportError(
            f"cannot read the shares {written!r}; write numbers with commas, such as 0.6,0.4"
        ) from None


def average(
    checkpoints: Sequence[Path],
    shares: Shares,
    output: Path,
    advance: Callable[[str, int, int], None],
) -> None:
    """Write the weighted mean of Qwen2-VL or Qwen2.5-VL checkpoint folders as another folder.

    It is taken in float32, a file of the first checkpoint at a time, and stored in that one's
    number format; what lies beside the weights, prompts included, is the first one's. Raises
    ExportError for fewer than two checkpoints, for such as differ in architecture, sizes or
    tokenizer, and where there are not as many shares as checkpoints; OutputError when `output`
    exists or cannot be written.
    """
    if output.exists():
        raise OutputError(f"{output} exists; remove it, or give another --output")
    if len(checkpoints) < 2:
        raise ExportError("there is nothing to average in one checkpoint; give two or more")
    _require_shares(shares, len(checkpoints))
    opened = [open_checkpoint(checkpoint) for checkpoint in checkpoints]
    for other in opened[1:]:
        _require_alike(opened[0], other)
    with whole_folder(output) as partial:
        shutil.copytree(opened[0].folder, partial, ignore=shutil.ignore_patterns("*.safetensors"))
        paths = list(tensor_files(opened[0].folder))
        advance("files averaged", 0, len(paths))
        for number, path in enumerate(paths, 1):
            file = TensorFile(path)
            mean = {
                name: _mean(our_name(name), opened, shares).to(file.dtype(name))
                for name in file.names
            }
            save_file(mean, partial / path.name, metadata={"format": "pt"})
            advance("files averaged", number, len(paths))


def _mean(name: str, checkpoints: Sequence[Checkpoint], shares: Shares) -> torch.Tensor:
    shapes = {checkpoint.weights.shape(name) for checkpoint in checkpoints}
    if len(shapes) > 1:
        raise ExportError(
            f"{name} has other shapes in other checkpoints: {', '.join(map(str, sorted(shapes)))}; "
            "average checkpoints that were trained on from the same weights"
        )
    parts = zip(checkpoints, shares.of(name), strict=True)
    total = sum(share * checkpoint.weights.read(name) for checkpoint, share in parts)
    return torch.as_tensor(total)


def _require_shares(shares: Shares, count: int) -> None:
    for kind, weights in (("language", shares.language), ("vision", shares.vision)):
        if len(weights) != count:
            raise ExportError(
                f"{len(weights)} shares of {kind} for {count} checkpoints; give one for each"
            )
        if not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
            raise ExportError(
                f"shares of {kind} are {', '.join(f'{w:g}' for w in weights)}; "
                "give numbers of at least 0, not all of them 0"
            )


def _facts(checkpoint: Checkpoint) -> dict[str, object]:
    """In what checkpoints must agree for a mean of their weights to mean anything."""
    return {
        "architecture": checkpoint.family,
        "language model": checkpoint.text,
        "vision tower": checkpoint.vision,
        "tying of embeddings": checkpoint.tied,
        "norms' epsilon": checkpoint.norm_epsilon,
        "activations": (checkpoint.text_activation, checkpoint.vision_activation),
        "image token": checkpoint.image_token_id,
        "tokenizer": _vocabulary(checkpoint.folder),
    }


def _vocabulary(folder: Path) -> str:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ExportError(f"{folder} has no tokenizer.json; give a complete checkpoint folder")
    return sha256(path.read_bytes()).hexdigest()


def _require_alike(first: Checkpoint, other: Checkpoint) -> None:
    theirs = _facts(other)
    for name, ours in _facts(first).items():
        if ours != theirs[name]:
            raise ExportError(
                f"{first.folder} and {other.folder} differ in their {name}: {ours}, "
                f"{theirs[name]}; average checkpoints that were trained on from the same weights"
            )
