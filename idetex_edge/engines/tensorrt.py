"""The `tensorrt` engine: TensorRT or TensorRT-RTX on the CUDA driver, without torch.

It runs bundles for a `tensorrt-*` target, with the engines in them or in this machine's cache.
Keys and values stay on the device, in slots of fixed number, and are written in place.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence as List
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import Bundle
from idetex_edge.cuda.driver import Device, cuda_driver
from idetex_edge.engines.cache import CachedSequence, gather
from idetex_edge.engines.checks import check_decoding, check_extension, check_forks, check_room
from idetex_edge.engines.embedding import EmbeddingTable
from idetex_edge.engines.protocol import Floats, Ids, Sequence
from idetex_edge.errors import EngineError, RequestError
from idetex_edge.positions import mrope_rotary
from idetex_edge.preprocess import PatchedImage
from idetex_edge.tensorrt.builders import BUILDERS, FLAVOURS
from idetex_edge.tensorrt.decoder import Decoder
from idetex_edge.tensorrt.encoder import Encoder
from idetex_edge.tensorrt.engines import Engines, engines_here
from idetex_edge.tensorrt.recipe import BUILD, DECODING, PREFILL, load_recipe
from idetex_edge.tensorrt.runtime import Runtime
from idetex_edge.tensorrt.slots import DeviceCache
from idetex_edge.tensorrt.store import EngineStore


class TensorrtEngine:
    """Runs a TensorRT bundle on the first NVIDIA GPU."""

    def __init__(
        self,
        bundle: Bundle,
        trt: Any = None,  # noqa: ANN401 (an untyped module)
        api: Any = None,  # noqa: ANN401 (an untyped module)
    ) -> None:
        """Read or build the engines, and plan all memory.

        trt, api: stand-ins for TensorRT's module and `cuda.bindings.driver`. Raises EngineError
        when there is no GPU, driver or TensorRT, when the bundle is for another target, or when an
        engine cannot be built or read; BundleError when one was altered.
        """
        manifest = bundle.manifest
        self._device = Device(cuda_driver("tensorrt") if api is None else api, "tensorrt")
        if BUILD not in manifest.files:
            raise EngineError(
                "the tensorrt engine runs bundles for a tensorrt target, this one is for "
                f"{manifest.target}; export it for {', '.join(BUILDERS)}"
            )
        recipe = load_recipe(bundle)
        place = (self._device.name, self._device.memory)
        built = (
            engines_here(bundle, recipe, *place)
            if trt is None
            else Engines(bundle, recipe, trt, *place)
        )
        trt, store = built.builder, EngineStore.of_user()
        kernels = f"{trt.__name__}-{trt.__version__}-{self._device.arch}"
        flavour = FLAVOURS[trt.__name__]
        runtime = Runtime(trt, self._device, store.find(kernels) if flavour.keeps else None)
        weakref.finalize(self, _keep, store, kernels, runtime)
        engines = {name: runtime.read(built.read(name), name) for name in recipe.engines}
        self._text, self._cache = manifest.text, manifest.cache
        self._embedding = EmbeddingTable(bundle)
        runtime.reserve(engines.values())
        prefill = runtime.program(engines["decoder"], PREFILL, "decoder")
        decoding = partial(runtime.program, engines["decoder"], DECODING, "decoder")
        self._decoder = Decoder(self._device, prefill, decoding, manifest.text, flavour.captures)
        sizes = range(len(recipe.engines["vision"].profiles))
        seeing = [runtime.program(engines["vision"], profile, "vision") for profile in sizes]
        self._encoder = Encoder(self._device, seeing, manifest.vision, manifest.text)
        # What contexts compile into must outlive them: attributes are freed in their order.
        self._runtime = runtime

    @property
    def name(self) -> str:
        """See `Engine.name`."""
        return "tensorrt"

    def encode(self, image: PatchedImage) -> Floats:
        """See `Engine.encode`."""
        self._device.make_current()
        return self._encoder.encode(image)

    def embed(self, token_ids: Ids) -> Floats:
        """See `Engine.embed`."""
        return self._embedding.rows(token_ids)

    def start(self, capacity: int) -> Sequence:
        """See `Engine.start`."""
        check_room(self._text, capacity)
        self._device.make_current()
        return CachedSequence(self._room(1, capacity), 0)

    def extend(
        self, sequence: Sequence, embeddings: Floats, positions: npt.NDArray[np.int64]
    ) -> Floats:
        """See `Engine.extend`."""
        mine, count = _own(sequence), len(embeddings)
        check_extension(self._text, mine.length, embeddings, positions)
        self._device.make_current()
        logits = self._decoder.prefill(
            mine.cache, mine.row, mine.length, embeddings, self._rotary(positions)
        )
        mine.length += count
        mine.next_position = max(mine.next_position, int(positions.max()) + 1)
        return logits

    def fork(self, sequence: Sequence, count: int, capacity: int) -> list[Sequence]:
        """See `Engine.fork`."""
        mine = _own(sequence)
        check_forks(self._text, count, max(capacity, mine.length))
        self._device.make_current()
        return [*mine.forks(self._room(count, capacity))]

    def decode(self, sequences: List[Sequence], token_ids: Ids) -> Floats:
        """See `Engine.decode`."""
        mine = [_own(sequence) for sequence in sequences]
        embeddings = self._embedding.rows(token_ids)
        check_decoding(self._text, mine, embeddings)
        self._device.make_current()
        logits = np.empty((len(mine), self._text.vocab), np.float32)
        most = self._decoder.most_rows
        for start in range(0, len(mine), most):
            part = mine[start : start + most]
            cache, first = gather(part, self._room)
            # The order of rows in the cache may not be the caller's.
            order = np.argsort([s.row for s in part])
            positions = np.array([part[i].next_position for i in order])
            logits[start + order] = self._decoder.decode(
                cache,
                first,
                embeddings[start + order],
                self._rotary(np.broadcast_to(positions, (3, len(part)))),
                [part[i].length for i in order],
            )
        for sequence in mine:
            sequence.length += 1
            sequence.next_position += 1
        return logits

    def _room(self, rows: int, slots: int) -> DeviceCache:
        return DeviceCache(self._device, self._text, self._cache, rows)

    def _rotary(self, positions: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        facts = self._text
        return mrope_rotary(
            positions,
            head_size=facts.head_dim,
            sections=facts.mrope_section,
            theta=facts.rope_theta,
        )


def _keep(store: EngineStore, key: str, runtime: Runtime) -> None:
    """Leave what was compiled while running to the next process, at the engine's end."""
    compiled = runtime.compiled()
    if compiled is not None:
        store.put(key, compiled)


def _own(sequence: Sequence) -> CachedSequence[DeviceCache]:
    if not isinstance(sequence, CachedSequence) or not isinstance(sequence.cache, DeviceCache):
        raise RequestError("this sequence belongs to another engine; start one with this engine")
    return sequence
