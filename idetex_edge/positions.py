"""Everything that depends on the picture's grid, computed on the host in numpy.

Windows, rotary tables and M-RoPE positions of Qwen2-VL and Qwen2.5-VL, fed to graphs as inputs so
that the graphs hold no loops. Rotary tables are half as wide as a head, which is how ONNX's
RotaryEmbedding and ONNX Runtime's GroupQueryAttention take them; transformers' tables are these
twice side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from idetex_edge.errors import RequestError

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class VisionWindows:
    """The order in which Qwen2.5-VL's windowed attention wants the patches of one picture.

    index: int64 [M], the merged token (merge_size x merge_size patches) at each place in window
        order. inverse: int64 [M], the place of each merged token, which undoes `index`.
    cu_seqlens: int32 [windows + 1], where each window begins, counted in patches; the last is N.
    """

    index: npt.NDArray[np.int64]
    inverse: npt.NDArray[np.int64]
    cu_seqlens: npt.NDArray[np.int32]

    def reorder(self, patches: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """Put rows of one patch each ([N, ...], any dtype) into window order."""
        tokens = patches.reshape(len(self.index), -1, *patches.shape[1:])
        return tokens[self.index].reshape(patches.shape)


def vision_windows(
    rows: int, columns: int, *, window_size: int, patch_size: int, merge_size: int
) -> VisionWindows:
    """Lay windows of `window_size` pixels over a grid of rows x columns patches.

    Windows run row by row; those at the right and lower edge hold what is left.
    """
    side = window_size // merge_size // patch_size
    token_rows, token_columns = rows // merge_size, columns // merge_size
    row, column = np.divmod(np.arange(token_rows * token_columns), token_columns)
    window = row // side * -(-token_columns // side) + column // side
    # Stable: inside a window, tokens keep the order of the picture.
    index = np.argsort(window, kind="stable")
    inverse = np.empty_like(index)
    inverse[index] = np.arange(len(index))
    ends = np.cumsum(np.bincount(window)) * merge_size**2
    return VisionWindows(index, inverse, np.concatenate([[0], ends]).astype(np.int32))


def vision_rotary(
    rows: int,
    columns: int,
    *,
    head_size: int,
    merge_size: int,
    theta: float = 10000.0,
    windows: VisionWindows | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cosines and sines for each patch of a rows x columns grid: two float32 [N, head_size / 2].

    The first half of a row turns with the patch's row, the second with its column. Patches stand
    in the order of `Preprocessor.patchify`, or in window order when `windows` are given.
    """
    row, column = np.indices((rows, columns), np.float32)
    blocks = np.stack([row, column], axis=-1).reshape(
        rows // merge_size, merge_size, columns // merge_size, merge_size, 2
    )
    places = blocks.transpose(0, 2, 1, 3, 4).reshape(-1, 2)
    if windows is not None:
        places = windows.reorder(places)
    angles = places[:, :, None] * _inverse_frequencies(head_size // 2, theta)
    return _cosines_and_sines(angles.reshape(len(places), -1))


def mrope_positions(
    token_ids: Sequence[int] | npt.NDArray[np.integer[Any]],
    *,
    image_token: int,
    grid: tuple[int, int] | None,
    merge_size: int,
    start: int = 0,
) -> tuple[npt.NDArray[np.int64], int]:
    """Time, height and width positions of tokens that hold at most one picture.

    token_ids: n ids; the picture is one unbroken run of `image_token`, anywhere.
    image_token: the id that stands for each of the picture's merged tokens.
    grid: (rows, columns) of the picture in patches, or None when there is no picture.
    merge_size: side, in patches, of the square that becomes one token.
    start: position of the first token; behind earlier tokens, their next position.

    Returns int64 [3, n] and the position of the token that would come next. A picture of r x c
    merged tokens takes up max(r, c) positions.
    Raises RequestError when the run of picture tokens is broken or does not fit the grid.
    """
    ids = np.asarray(token_ids, np.int64)
    places = np.flatnonzero(ids == image_token)
    rows, columns = (side // merge_size for side in grid or (0, 0))
    count = rows * columns
    if len(places) != count or (count and places[-1] - places[0] + 1 != count):
        raise RequestError(
            f"the prompt holds {len(places)} picture tokens where the picture's grid needs "
            f"{count} in one run; ask about one picture at a time"
        )
    first = int(places[0]) if count else len(ids)
    span = max(rows, columns)
    positions = np.empty((3, len(ids)), np.int64)
    positions[:, :first] = start + np.arange(first)
    row, column = np.indices((rows, columns)).reshape(2, -1)
    picture = positions[:, first : first + count]
    picture[0], picture[1], picture[2] = 0, row, column
    picture += start + first
    behind = len(ids) - first - count
    positions[:, first + count :] = start + first + span + np.arange(behind)
    return positions, start + first + span + behind


def mrope_rotary(
    positions: npt.NDArray[np.int64],
    *,
    head_size: int,
    sections: Sequence[int],
    theta: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cosines and sines for each token: two float32 [n, head_size / 2].

    positions: int64 [3, n], see `mrope_positions`.
    head_size: size of an attention head.
    sections: Qwen2-VL's `mrope_section`, how many frequencies turn with time, height and
        width; their sum is head_size / 2.
    theta: base of the frequencies, `rope_theta`.

    Raises RequestError when the sections do not add up to half a head.
    """
    if len(sections) != 3 or 2 * sum(sections) != head_size:
        raise RequestError(
            f"mrope_section {list(sections)} must be three numbers that add up to {head_size // 2},"
            " half of the head size; check the model's configuration"
        )
    axis = np.repeat(np.arange(3), sections)
    angles = positions.T.astype(np.float32)[:, axis] * _inverse_frequencies(head_size, theta)
    return _cosines_and_sines(angles)


def _inverse_frequencies(size: int, theta: float) -> npt.NDArray[np.float32]:
    # Rounded to float32 where transformers rounds: at position 10,000 a last bit shows.
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return np.float32(1) / (theta ** exponents.astype(np.float64)).astype(np.float32)


def _cosines_and_sines(
    angles: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    return np.cos(angles), np.sin(angles)
