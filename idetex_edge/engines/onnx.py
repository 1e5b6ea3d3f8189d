"""The `onnx` engine: ONNX Runtime, on any of the providers that `providers.PROVIDERS` lists.

Graph contracts are those of `export/graphs/vision.py` and `export/graphs/decoder.py`. Keys and
values lie in the host's memory, past and present bound to the same buffer: on the CPU they never
move, a GPU is sent them and gives them back at every step.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Generator
from collections.abc import Sequence as List
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from idetex_edge.bundle import Bundle
from idetex_edge.engines.cache import CachedSequence, KvCache, gather
from idetex_edge.engines.checks import check_decoding, check_extension, check_forks, check_room
from idetex_edge.engines.decoder_step import DecoderStep
from idetex_edge.engines.embedding import EmbeddingTable
from idetex_edge.engines.feeds import vision_feeds
from idetex_edge.engines.protocol import Floats, Ids, Sequence
from idetex_edge.engines.providers import PROVIDERS
from idetex_edge.engines.sessions import (
    make_session,
    profile_options,
    require_provider,
    run_options,
)
from idetex_edge.errors import EngineError, RequestError
from idetex_edge.positions import mrope_rotary
from idetex_edge.preprocess import PatchedImage
from idetex_edge.tensorrt.place import user_cache
from idetex_edge.tensorrt.recipe import DECODING, load_recipe

_WORTH_WAKING: Final = 20_000_000
"""Products in one run of a decoder (about; a third to a quarter of its weights for each token) from
which a second thread is worth waking: below, a run takes less time than its threads need to meet.
"""

_ANY: Final = sys.maxsize
"""More sequences than are ever decoded at once."""

_PIECE: Final = 256
"""The most tokens of a prompt in one run: their scores against all before them stay in the caches,
and a token is not multiplied with the pieces behind it only to be masked.
"""

_SHORT: Final = 16
"""The most tokens of a step that is kept: a draft, or a run that a grammar forces."""

# ONNX Runtime's tiled attention takes 2.5 times as long as its plain one for a prompt of 280 tokens
# and 2 to 4 times for 1,024; what it would save, memory for the scores, pieces save as well. Read
# when a session is made, and nothing but the environment is asked.
os.environ.setdefault("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")


class OnnxEngine:
    """Runs a bundle on ONNX Runtime. Sessions are made when first used."""

    def __init__(self, bundle: Bundle, threads: int | None = None, name: str = "onnx:cpu") -> None:
        """Prepare to run a bundle on `threads` CPU threads (None: all physical cores).

        name: which row of `PROVIDERS`. Raises EngineError when the provider is missing, or the
        bundle is for another target.
        """
        self._provider = PROVIDERS[name]
        require_provider(name)
        targets = self._provider.targets
        if bundle.manifest.target not in targets:
            raise EngineError(
                f"the {name} engine runs {', '.join(targets)} bundles, this one is for "
                f"{bundle.manifest.target}; export it for {targets[0]}"
            )
        self._name, self._bundle, self._threads = name, bundle, threads
        profiled = self._provider.profiled
        self._profiles = load_recipe(bundle).engines if profiled else {}
        self._most_rows = _ANY
        if profiled:
            decoding = self._profiles["decoder"].profiles[DECODING]
            self._most_rows = decoding["last_slots"][-1][0]
        self._text, self._vision = bundle.manifest.text, bundle.manifest.vision
        self._cache = bundle.manifest.cache
        self._embedding = EmbeddingTable(bundle)
        self._local = threading.local()
        self._text_rotary = self._rotary(np.zeros((3, 0), np.int64))

    @property
    def name(self) -> str:
        """See `Engine.name`."""
        return self._name

    @cached_property
    def _encoder(self) -> ort.InferenceSession:
        return self._session("vision", self._threads)

    @cached_property
    def _prefiller(self) -> ort.InferenceSession:
        return self._session("decoder", self._threads)

    @cached_property
    def _stepper(self) -> ort.InferenceSession:
        # A second one would hold the weights a second time in a GPU's memory.
        return self._prefiller if self._provider.apart else self._session("decoder", 1)

    def _decoder(self, tokens: int) -> ort.InferenceSession:
        """The session in which to run so many tokens."""
        return self._prefiller if self._worth_waking(tokens) and not self._alone else self._stepper

    def _worth_waking(self, tokens: int) -> bool:
        """Whether a run of so many tokens is worth a second thread."""
        facts = self._text
        products = tokens * facts.layers * facts.hidden * (facts.intermediate + facts.hidden)
        return self._threads != 1 and products >= _WORTH_WAKING

    @property
    def _alone(self) -> bool:
        """Whether this thread is in a lane."""
        return hasattr(self._local, "lane")

    @property
    def lanes(self) -> int:
        """See `ParallelEngine.lanes`: all threads, where one step is not worth two of them."""
        return 1 if self._alone else self._lanes

    @cached_property
    def _lanes(self) -> int:
        if self._provider.apart or self._worth_waking(1):
            return 1
        return self._threads or os.cpu_count() or 1

    @contextmanager
    def lane(self) -> Generator[None]:
        """See `ParallelEngine.lane`."""
        self._local.lane = True
        try:
            yield
        finally:
            del self._local.lane

    def _session(self, graph: str, threads: int | None) -> ort.InferenceSession:
        told: dict[str, str] = {}
        if self._provider.profiled:
            told = profile_options(self._profiles[graph].profiles)
            told["nv_runtime_cache_path"] = str(user_cache() / "onnx-rtx")
        path = self._bundle.file(self._bundle.manifest.graphs[graph])
        return make_session(self._name, path, threads, told)

    def encode(self, image: PatchedImage) -> Floats:
        """See `Engine.encode`."""
        feeds = vision_feeds(image, self._vision)
        run = run_options(self._profile("vision", "patches", len(image.patches)))
        try:
            return np.asarray(self._encoder.run(["features"], feeds, run)[0])
        except Exception as error:
            raise EngineError(f"the encoder failed: {str(error).splitlines()[0]}") from None

    def embed(self, token_ids: Ids) -> Floats:
        """See `Engine.embed`."""
        return self._embedding.rows(token_ids)

    def start(self, capacity: int) -> Sequence:
        """See `Engine.start`."""
        check_room(self._text, capacity)
        return CachedSequence(self._room(1, capacity), 0)

    def extend(
        self, sequence: Sequence, embeddings: Floats, positions: npt.NDArray[np.int64]
    ) -> Floats:
        """See `Engine.extend`."""
        mine, count = _own(sequence), len(embeddings)
        check_extension(self._text, mine.length, embeddings, positions)
        mine.cache.reserve(mine.length + count)
        decoder = self._decoder(count)
        # A GPU is sent the whole cache with every piece.
        runs = 1 if self._provider.apart else -(-count // _PIECE)
        pieces = np.array_split(np.arange(count), runs)
        logits = [
            self._read(decoder, mine, embeddings[piece], positions[:, piece], int(piece[0]))
            for piece in pieces
        ][-1]
        mine.length += count
        mine.next_position = max(mine.next_position, int(positions.max()) + 1)
        return logits

    def _read(
        self,
        decoder: ort.InferenceSession,
        mine: CachedSequence[KvCache],
        embeddings: Floats,
        positions: npt.NDArray[np.int64],
        before: int,
    ) -> Floats:
        """Put tokens `before` behind a sequence's end, which stays; the last one's logits."""
        count = len(embeddings)
        step = self._step(decoder, mine.cache, mine.row, 1, count)
        step.embeddings[0] = embeddings
        step.cos[:count], step.sin[:count] = self._rotary(positions)
        return step.run([mine.length + before])[0].copy()

    def _step(
        self,
        decoder: ort.InferenceSession,
        cache: KvCache,
        first: int,
        rows: int,
        tokens: int,
        asked: int = 1,
    ) -> DecoderStep:
        """What runs such a step, kept with the cache where the step is short and comes again."""
        key = (first, rows, tokens, asked)
        step = cache.steps.get(key)
        if step is None:
            step = DecoderStep(
                decoder,
                *(self._text, cache, *key),
                apart=self._provider.apart,
                profile=self._profile("decoder", "rotary_rows", rows, tokens),
            )
            if tokens <= _SHORT:
                cache.steps[key] = step
        return step

    @cached_property
    def drafts(self) -> bool:
        """See `DraftingEngine.drafts`."""
        return "logit_tokens" in {value.name for value in self._decoder(1).get_inputs()}

    def follow(self, sequence: Sequence, token_ids: Ids) -> Floats:
        """See `DraftingEngine.follow`."""
        mine, embeddings = _own(sequence), self._embedding.rows(token_ids)
        count = len(embeddings)
        if not mine.length or not count or not self.drafts:
            raise RequestError("only a prompt that was put to a graph of several logits goes on so")
        check_room(self._text, mine.length + count)
        mine.cache.reserve(mine.length + count)
        step = self._step(self._decoder(count), mine.cache, mine.row, 1, count, count)
        step.embeddings[0] = embeddings
        positions = np.arange(mine.next_position, mine.next_position + count)
        step.cos[:count], step.sin[:count] = self._rotary_of_text(positions)
        logits = step.run([mine.length]).copy()
        mine.length += count
        mine.next_position += count
        return logits

    def forget(self, sequence: Sequence, count: int) -> None:
        """See `DraftingEngine.forget`."""
        mine = _own(sequence)
        if not 0 <= count < mine.length:
            raise RequestError(f"cannot take back {count} of {mine.length} tokens")
        # What lies behind a sequence's end is masked, and written over.
        mine.length -= count
        mine.next_position -= count

    def fork(self, sequence: Sequence, count: int, capacity: int) -> list[Sequence]:
        """See `Engine.fork`."""
        mine = _own(sequence)
        slots = max(capacity, mine.length)
        check_forks(self._text, count, slots)
        # A cache that one thread makes grow must not be another's.
        rows = 1 if self._lanes > 1 else count
        caches = [self._room(rows, slots) for _ in range(count // rows)]
        return [fork for cache in caches for fork in mine.forks(cache)]

    def decode(self, sequences: List[Sequence], token_ids: Ids) -> Floats:
        """See `Engine.decode`."""
        mine = [_own(sequence) for sequence in sequences]
        embeddings = self._embedding.rows(token_ids)
        check_decoding(self._text, mine, embeddings)
        logits = np.empty((len(mine), self._text.vocab), np.float32)
        for start in range(0, len(mine), self._most_rows):
            part = slice(start, start + self._most_rows)
            logits[part] = self._decode(mine[part], embeddings[part])
        for sequence in mine:
            sequence.length += 1
            sequence.next_position += 1
        return logits

    def _decode(self, mine: List[CachedSequence[KvCache]], embeddings: Floats) -> Floats:
        lengths = [s.length for s in mine]
        cache, first = gather(mine, self._room)
        cache.reserve(max(lengths) + 1)
        step = self._step(self._decoder(len(mine)), cache, first, len(mine), 1)
        # The order of rows in the cache may not be the caller's.
        order = sorted(range(len(mine)), key=lambda i: mine[i].row)
        step.embeddings[:, 0] = embeddings[order]
        positions = np.array([mine[i].next_position for i in order])
        step.cos[: len(mine)], step.sin[: len(mine)] = self._rotary_of_text(positions)
        logits = np.empty((len(mine), self._text.vocab), np.float32)
        logits[order] = step.run([lengths[i] for i in order])
        return logits

    def _profile(self, graph: str, name: str, *sizes: int) -> int | None:
        """The tightest profile in which an input's first sizes are these; None without any."""
        if not self._provider.profiled:
            return None
        largest = [profile[name][-1] for profile in self._profiles[graph].profiles]
        fitting = [
            (math.prod(most[: len(sizes)]), index)
            for index, most in enumerate(largest)
            if all(size <= bound for size, bound in zip(sizes, most, strict=False))
        ]
        if not fitting:
            raise RequestError(f"the {graph} graph was not made for {list(sizes)} of {name}")
        return min(fitting)[1]

    def keep(self, sequence: Sequence) -> npt.NDArray[np.floating[Any]]:
        """See `KeepingEngine.keep`: [layers, 2, kv_heads, length, head_dim]."""
        mine = _own(sequence)
        return mine.cache.data[:, :, mine.row, :, : mine.length].copy()

    def restore(self, kept: npt.NDArray[np.floating[Any]], next_position: int) -> Sequence:
        """See `KeepingEngine.restore`."""
        facts = self._text
        length = kept.shape[3] if kept.ndim == 5 else 0
        expected = (facts.layers, 2, facts.kv_heads, length, facts.head_dim)
        if kept.shape != expected or kept.dtype != self._cache.dtype or not next_position > 0:
            raise RequestError(
                f"keys and values {kept.dtype} {list(kept.shape)} are not {self._cache.dtype} "
                f"{list(expected)} of this model; encode the picture again"
            )
        check_room(self._text, length)
        cache = self._room(1, length)
        cache.data[:, :, 0, :, :length] = kept
        return CachedSequence(cache, 0, length, next_position)

    def _room(self, rows: int, slots: int) -> KvCache:
        return KvCache(self._text, self._cache, rows, slots)

    def _rotary(self, positions: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        facts = self._text
        return mrope_rotary(
            positions,
            head_size=facts.head_dim,
            sections=facts.mrope_section,
            theta=facts.rope_theta,
        )

    def _rotary_of_text(self, positions: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Angles where all three axes agree, from a table that grows as it is needed."""
        needed = int(positions.max()) + 1
        # Another thread may put a shorter table there meanwhile.
        cos, sin = self._text_rotary
        if needed > len(cos):
            table = np.arange(max(needed, 2 * len(cos)))
            cos, sin = self._text_rotary = self._rotary(np.broadcast_to(table, (3, len(table))))
        return cos[positions], sin[positions]


def _own(sequence: Sequence) -> CachedSequence[KvCache]:
    if not isinstance(sequence, CachedSequence) or not isinstance(sequence.cache, KvCache):
        raise RequestError("this sequence belongs to another engine; start one with this engine")
    return sequence
