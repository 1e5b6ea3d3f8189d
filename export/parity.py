"""Proof that a bundle says what its checkpoint says: both run on real photographs, then compared.

The bundle's engine reads each picture, answers greedily for a number of tokens, and keeps the
logits of every step; transformers then reads the same tokens in one pass. Pixels, prompts and
positions are those of the runtime, so what is proven is the path that users run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, PreTrainedModel

from export.targets import Precision
from idetex_edge.bundle import TOKENIZER, Bundle
from idetex_edge.engines import Engine
from idetex_edge.errors import ExportError, ImageError
from idetex_edge.image import load_image
from idetex_edge.positions import mrope_positions
from idetex_edge.preprocess import PatchedImage
from idetex_edge.vocabulary import IMAGE_PAD

STEPS: Final = 64
"""Decoded tokens compared for each picture, behind its prompt's last one."""

_PICTURES: Final = 3
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_FROM_SKIMAGE: Final = (("astronaut", (448, 448)), ("coffee", (560, 336)), ("rocket", (252, 504)))


@dataclass(frozen=True, slots=True)
class PictureParity:
    """One picture: relative logits error max|a - b| / max|b|, cosine of the vision features."""

    picture: str
    grid: tuple[int, int]
    prompt_tokens: int
    logits_error: float
    top1_agreement: float
    vision_cosine: float


@dataclass(frozen=True, slots=True)
class Parity:
    """All pictures' parity, and the worst of each figure."""

    reference: str
    steps: int
    pictures: tuple[PictureParity, ...]

    @property
    def logits_error(self) -> float:
        """Give the largest relative error of any picture."""
        return max(p.logits_error for p in self.pictures)

    @property
    def vision_cosine(self) -> float:
        """Give the smallest cosine of any token of any picture."""
        return min(p.vision_cosine for p in self.pictures)

    @property
    def top1_agreement(self) -> float:
        """Give the share of steps at which both would say the same token."""
        return float(np.mean([p.top1_agreement for p in self.pictures]))

    def to_dict(self) -> dict[str, Any]:
        """Give the contents of `parity.json`."""
        worst = {
            "logits_error": self.logits_error,
            "top1_agreement": self.top1_agreement,
            "vision_cosine": self.vision_cosine,
        }
        return worst | asdict(self)

    def require(self, limits: Precision) -> None:
        """Raise ExportError, with the numbers, when a limit is passed or a figure is NaN."""
        if not self.logits_error <= limits.logits_error:
            raise ExportError(
                f"logits differ from the checkpoint's by {self.logits_error:.2e} relative, "
                f"over the limit of {limits.logits_error:.0e}; the bundle was not written"
            )
        if not self.vision_cosine >= limits.vision_cosine:
            raise ExportError(
                f"vision features have cosine {self.vision_cosine:.7f} with the checkpoint's, "
                f"under the limit of {limits.vision_cosine}; the bundle was not written"
            )
        if not self.top1_agreement >= limits.top1_agreement:
            raise ExportError(
                f"only {self.top1_agreement:.1%} of tokens agree with the checkpoint's, under the "
                f"limit of {limits.top1_agreement:.0%}; the bundle was not written"
            )


def photographs(folder: Path | None) -> Iterator[tuple[str, Image.Image]]:
    """Named RGB pictures: a folder's first three readable ones, or three that scikit-image ships.

    Raises ExportError when there is none.
    """
    if folder is None:
        try:
            from skimage import data
        except ImportError:
            raise ExportError(
                "parity needs photographs: pass --pictures FOLDER or install scikit-image"
            ) from None
        for name, size in _FROM_SKIMAGE:
            yield name, Image.fromarray(getattr(data, name)()).resize(size)
        return
    found = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() in _SUFFIXES and found < _PICTURES:
            try:
                picture = load_image(path)
            except ImageError:
                continue
            found += 1
            yield path.name, picture
    if not found:
        raise ExportError(f"{folder} holds no readable pictures; give a folder of photographs")


def measure_parity(
    checkpoint: Path, bundle: Bundle, engine: Engine, pictures: Path | None, steps: int = STEPS
) -> Parity:
    """Run checkpoint and bundle on the same pictures and compare (see this module's docstring)."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(bundle.file(TOKENIZER)))
    results = [
        _compare(name, picture, model, tokenizer, bundle, engine, steps)
        for name, picture in photographs(pictures)
    ]
    return Parity(f"transformers {transformers.__version__}", steps, tuple(results))


def _compare(
    name: str,
    picture: Image.Image,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    bundle: Bundle,
    engine: Engine,
    steps: int,
) -> PictureParity:
    patched = bundle.manifest.preprocessor.patchify(picture)
    prompt = _prompt_ids(tokenizer, bundle, patched)
    features = engine.encode(patched)
    ids, logits = _answer(prompt, features, patched, bundle, engine, steps)
    their_features, their_logits = _reference(model, ids, patched, steps)
    return PictureParity(
        picture=name,
        grid=patched.grid,
        prompt_tokens=len(prompt),
        logits_error=float(np.abs(logits - their_logits).max() / np.abs(their_logits).max()),
        top1_agreement=float(np.mean(logits.argmax(-1) == their_logits.argmax(-1))),
        vision_cosine=_cosine(features, their_features),
    )


def _prompt_ids(tokenizer: Tokenizer, bundle: Bundle, patched: PatchedImage) -> list[int]:
    prompt = bundle.manifest.prompts["grounding"]
    rows, columns = (side // bundle.manifest.vision.merge for side in patched.grid)
    text = prompt.head(columns, rows) + IMAGE_PAD * (rows * columns) + prompt.tail()
    return tokenizer.encode(text, add_special_tokens=False).ids


def _answer(
    prompt: list[int],
    features: npt.NDArray[np.float32],
    patched: PatchedImage,
    bundle: Bundle,
    engine: Engine,
    steps: int,
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Greedy decoding: all tokens but the last, and the logits [1 + steps, vocab] behind each."""
    image_token = bundle.manifest.tokens[IMAGE_PAD]
    embeddings = engine.embed(prompt)
    embeddings[np.equal(prompt, image_token)] = features
    positions, _ = mrope_positions(
        prompt,
        image_token=image_token,
        grid=patched.grid,
        merge_size=bundle.manifest.vision.merge,
    )
    sequence = engine.start(len(prompt) + steps)
    logits = [engine.extend(sequence, embeddings, positions)]
    answer: list[int] = []
    for _ in range(steps):
        # transformers would take the picture's placeholder, which random models may say, for one.
        sayable = np.where(np.arange(len(logits[-1])) == image_token, -np.inf, logits[-1])
        answer.append(int(sayable.argmax()))
        logits.append(engine.decode([sequence], answer[-1:])[0])
    return prompt + answer, np.stack(logits)


def _reference(
    model: PreTrainedModel, ids: list[int], patched: PatchedImage, steps: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    grid = torch.tensor([[1, *patched.grid]])
    tokens, pixels = torch.tensor([ids]), torch.from_numpy(patched.patches)
    with torch.inference_mode():
        features = model.model.visual(pixels, grid_thw=grid).pooler_output
        logits = model(
            input_ids=tokens,
            pixel_values=pixels,
            image_grid_thw=grid,
            mm_token_type_ids=(tokens == model.config.image_token_id).int(),
            logits_to_keep=1 + steps,
        ).logits[0]
    return features.numpy(), logits.numpy()


def _cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Give the smallest cosine between two tokens' features."""
    products = (a.astype(np.float64) * b).sum(-1)
    norms = np.linalg.norm(a.astype(np.float64), axis=-1) * np.linalg.norm(b, axis=-1)
    return float((products / norms).min())
