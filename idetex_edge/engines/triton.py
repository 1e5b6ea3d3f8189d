"""The `triton` engine: kernels compiled ahead of time, on the CUDA driver alone.

It runs any bundle that has a part for GPUs (`idetex_edge.triton.contents`). Matrices and attention
compute in FP16 with FP32 sums, the residual stream and norms in FP32. INT8 matrices multiply INT8
rows, each rounded by itself, in vision and prefill; decoding widens them. It repeats captured
graphs. A fork shares its prefix's keys and values, it never copies them.
"""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import Any

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import Bundle
from idetex_edge.cuda.driver import Device, cuda_driver
from idetex_edge.engines.checks import check_decoding, check_extension, check_forks, check_room
from idetex_edge.engines.embedding import EmbeddingTable
from idetex_edge.engines.protocol import Floats, Ids, Sequence
from idetex_edge.errors import RequestError
from idetex_edge.preprocess import PatchedImage
from idetex_edge.triton.contents import read_contents
from idetex_edge.triton.kernel import Kernels
from idetex_edge.triton.language import Language
from idetex_edge.triton.layers import Layers
from idetex_edge.triton.memory import Weights
from idetex_edge.triton.slots import Chain
from idetex_edge.triton.vision import Vision


class TritonEngine:
    """Runs a bundle's GPU part on the first NVIDIA GPU."""

    def __init__(self, bundle: Bundle, api: Any = None) -> None:  # noqa: ANN401 (untyped module)
        """Load weights and plan all memory, through `api` where it is not `cuda.bindings.driver`.

        Raises EngineError when there is no GPU, driver or cuda-bindings, or when the bundle has no
        part for this GPU.
        """
        manifest = bundle.manifest
        self._device = Device(cuda_driver("triton") if api is None else api, "triton")
        contents = read_contents(bundle)
        self._text = manifest.text
        self._embedding = EmbeddingTable(bundle)
        layers = Layers(
            Kernels(self._device, bundle, contents), Weights(self._device, bundle, contents)
        )
        self._language = Language(self._device, layers, contents, manifest.text)
        patches = manifest.preprocessor.max_pixels // manifest.vision.patch**2
        self._vision = Vision(
            self._device, layers, contents, manifest.vision, manifest.text, patches
        )

    @property
    def name(self) -> str:
        """See `Engine.name`."""
        return "triton"

    def encode(self, image: PatchedImage) -> Floats:
        """See `Engine.encode`."""
        self._device.make_current()
        return self._vision.encode(image)

    def embed(self, token_ids: Ids) -> Floats:
        """See `Engine.embed`."""
        return self._embedding.rows(token_ids)

    def start(self, capacity: int) -> Sequence:
        """See `Engine.start`."""
        check_room(self._text, capacity)
        return Chain(self._language.slots).fork(capacity)

    def extend(
        self, sequence: Sequence, embeddings: Floats, positions: npt.NDArray[np.int64]
    ) -> Floats:
        """See `Engine.extend`; positions lie within the model's context."""
        mine = self._own(sequence)
        check_extension(self._text, mine.length, embeddings, positions)
        if positions.min() < 0 or positions.max() >= self._text.max_context:
            raise RequestError(
                f"positions {positions.min()}..{positions.max()} go beyond the model's context of "
                f"{self._text.max_context}"
            )
        self._device.make_current()
        return self._language.prefill(mine, embeddings, positions)

    def fork(self, sequence: Sequence, count: int, capacity: int) -> list[Sequence]:
        """See `Engine.fork`."""
        mine = self._own(sequence)
        check_forks(self._text, count, max(capacity, mine.length))
        return [mine.fork(capacity) for _ in range(count)]

    def decode(self, sequences: List[Sequence], token_ids: Ids) -> Floats:
        """See `Engine.decode`."""
        mine = [self._own(sequence) for sequence in sequences]
        embeddings = self._embedding.rows(token_ids)
        check_decoding(self._text, mine, embeddings)
        if max(chain.next_position for chain in mine) >= self._text.max_context:
            raise RequestError(f"the model's context of {self._text.max_context} positions is full")
        self._device.make_current()
        return self._language.decode(mine, embeddings)

    def _own(self, sequence: Sequence) -> Chain:
        if not isinstance(sequence, Chain) or sequence.slots is not self._language.slots:
            raise RequestError(
                "this sequence belongs to another engine; start one with this engine"
            )
        return sequence
