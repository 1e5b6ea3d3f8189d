"""The score as a metric in the manner of pyiqa: call it on a path or on tensors.

metric = create_metric("nano")
metric("photo.jpg"), metric(batch)          # batch: [N, 3, H, W], RGB, 0..1
metric.lower_better, metric.score_range     # False, "0, 100"
"""

from __future__ import annotations

import os
from typing import Any, Final, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
import numpy.typing as npt

from idetex_edge.assessor import NANO, Assessor
from idetex_edge.engines import AUTO
from idetex_edge.errors import RequestError

BUNDLED: Final = "nano"

T = TypeVar("T", bound="TensorLike")


@runtime_checkable
class TensorLike(Protocol):
    """What is needed of a torch tensor; torch itself is not."""

    def detach(self: T) -> T:
        """Without gradient."""
        ...

    def cpu(self: T) -> T:
        """In host memory."""
        ...

    def numpy(self) -> npt.NDArray[Any]:
        """As an array."""
        ...

    def new_tensor(self: T, data: list[float]) -> T:
        """A tensor of these numbers, of this one's type and on its device."""
        ...


class Metric:
    """No-reference image quality, 0..100, higher is better."""

    lower_better: Final = False
    score_range: Final = "0, 100"

    def __init__(self, assessor: Assessor) -> None:
        """Take scores from an Assessor."""
        self._assessor = assessor

    @overload
    def __call__(self, target: T) -> T: ...

    @overload
    def __call__(self, target: str | os.PathLike[str]) -> np.float64: ...

    @overload
    def __call__(self, target: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]: ...

    def __call__(self, target: object) -> object:
        """Score a file, or a batch [N, 3, H, W] or picture [3, H, W] of RGB floats 0..1.

        A tensor gives a tensor [N] of its type on its device, an array float64 [N], a path one
        number. There is no gradient. Raises ImageError when a picture cannot be read, RequestError
        when a batch has another shape.
        """
        if isinstance(target, str | os.PathLike):
            return np.float64(self._assessor.score(target).score)
        if isinstance(target, np.ndarray):
            return np.array(self._scores(target))
        if isinstance(target, TensorLike):
            return target.new_tensor(self._scores(target.detach().cpu().numpy()))
        raise RequestError(
            f"cannot score {type(target).__name__}; pass a path, or a tensor [N, 3, H, W] in 0..1"
        )

    def _scores(self, batch: npt.NDArray[Any]) -> list[float]:
        pictures = batch[None] if batch.ndim == 3 else batch
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.dtype.kind != "f":
            raise RequestError(
                f"a batch of shape {list(batch.shape)} and type {batch.dtype} is no "
                "[N, 3, H, W] of floats; scale pictures to 0..1"
            )
        return [
            self._assessor.score(picture.transpose(1, 2, 0).astype(np.float32)).score
            for picture in pictures
        ]


def create_metric(
    name: str | os.PathLike[str] = BUNDLED, *, engine: str = AUTO, threads: int | None = None
) -> Metric:
    """Make a metric of the bundled model, of a bundle folder, or of a bundle on the hub.

    Raises as `Assessor.from_pretrained` does.
    """
    bundle = NANO if name == BUNDLED else name
    return Metric(Assessor.from_pretrained(bundle, engine=engine, threads=threads))
