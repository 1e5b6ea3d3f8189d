"""TensorRT's runtime on a GPU of host memory: ONNX Runtime computes what an engine would.

It stands in for the module `tensorrt` or `tensorrt_rtx` beside `host_gpu.HostGpu`. An engine's
bytes name its graph and profiles. Executing checks what TensorRT would only suffer from: shapes
against the profile, every address against live memory, caches against their aliases, the stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
from host_gpu import STREAM, HostGpu

from idetex_edge.bundle import Bundle
from idetex_edge.tensorrt.memory import Limits
from idetex_edge.tensorrt.recipe import EngineRecipe

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


def fake_build(
    trt: FakeTensorrt,
    bundle: Bundle,
    recipe: EngineRecipe,
    limits: Limits,
    into: Path,
    share: Callable[[float], None],
) -> None:
    """In the place of `build_apart`."""
    trt.builds.append(Path(recipe.graph).stem)
    share(1.0)
    told = {"graph": str(bundle.file(recipe.graph)), "profiles": recipe.profiles}
    into.write_text(json.dumps(told | {"streams": limits.streams}))


class FakeTensorrt:
    """The module. `refused`: makes every execution fail, as a broken engine does."""

    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="ours")

    def __init__(self, gpu: HostGpu, name: str = "tensorrt", version: str = "11.0.0") -> None:
        self.__name__, self.__version__ = name, version
        self.gpu, self.builds = gpu, list[str]()
        self.executed: list[str] = []
        self.strategies: list[str] = []
        self.contexts: list[str] = []
        self.engines: list[FakeEngine] = []
        self.taken: list[bytes] = []
        self.refused = False

    class Logger:
        WARNING = 1

        def __init__(self, level: int) -> None:
            assert level == self.WARNING

    def Runtime(self, logger: Logger) -> FakeRuntime:  # noqa: N802
        return FakeRuntime(self)


@dataclass
class FakeRuntime:
    trt: FakeTensorrt

    def deserialize_cuda_engine(self, data: memoryview) -> FakeEngine | None:
        text = bytes(data)
        return FakeEngine(self.trt, **json.loads(text)) if text.startswith(b"{") else None


@dataclass
class FakeCache:
    """Kernels compiled by the contexts that share it."""

    trt: FakeTensorrt
    kernels: list[str] = field(default_factory=list[str])

    def deserialize(self, blob: bytes) -> None:
        self.trt.taken.append(blob)

    def serialize(self) -> bytes:
        return ",".join(sorted(self.kernels)).encode()


@dataclass
class FakeConfig:
    trt: FakeTensorrt
    cuda_graph_strategy: str = "none"
    strategy: str = "static"
    cache: FakeCache | None = None

    def create_runtime_cache(self) -> FakeCache:
        return FakeCache(self.trt)

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def set_runtime_cache(self, cache: FakeCache) -> None:
        self.cache = cache


class FakeEngine:
    def __init__(
        self, trt: FakeTensorrt, graph: str, profiles: list[dict[str, Any]], streams: bool
    ) -> None:
        self.trt, self.profiles, self.what = trt, profiles, Path(graph).stem
        trt.engines.append(self)
        # TensorRT streams no weights of an engine until it is told how many to leave on the GPU.
        self.streamable_weights_size = Path(f"{graph}.data").stat().st_size if streams else 0
        self.weight_streaming_budget_v2 = self.streamable_weights_size
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value.type for value in self.session.get_inputs()}
        self.outputs = {value.name: value.type for value in self.session.get_outputs()}
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> str:
        return f"TensorIOMode.{'INPUT' if name in self.inputs else 'OUTPUT'}"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return self.profiles[profile][name]

    def get_weight_streaming_automatic_budget(self) -> int:
        return self.streamable_weights_size // 2

    def create_runtime_config(self) -> FakeConfig:
        return FakeConfig(self.trt)

    num_optimization_profiles = property(lambda self: len(self.profiles))

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        # What is larger needs more; no two profiles need the same.
        return 1000 + sum(math.prod(shapes[-1]) for shapes in self.profiles[profile].values())

    def create_execution_context(self, how: FakeConfig | str) -> FakeContext:
        assert isinstance(how, FakeConfig) == (self.trt.__name__ == "tensorrt_rtx")
        if isinstance(how, FakeConfig):
            self.trt.strategies.append(how.cuda_graph_strategy)
            assert how.cache is not None
            how.cache.kernels.append(self.what)
            how = how.strategy
        assert how == "ours"
        self.trt.contexts.append(self.what)
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine, self._gpu = engine, engine.trt.gpu
        self._profile: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._recorded: dict[str, tuple[int, ...]] | None = None
        self._working = self._needed = 0

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 256 == 0
        self._working, self._size = address, size

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == STREAM
        self._profile = self._engine.profiles[profile]
        self._needed = self._engine.get_device_memory_size_for_profile_v2(profile)
        assert self._size >= self._needed
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._profile[name]
        self._shapes[name] = shape
        return len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address % 4 == 0

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        if self._engine.trt.refused:
            return False
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        # What was recorded of a context is no longer good once it has run with other shapes.
        assert self._recorded in (None, shapes)
        if self._gpu.captures:
            self._recorded = shapes
        assert set(addresses) == {*self._engine.inputs, *self._engine.outputs}
        for name in self._engine.outputs:
            if name.startswith("present_"):
                assert addresses[name] == addresses[name.replace("present", "past")]
        self._gpu.enqueue(lambda: self._compute(addresses, shapes))
        return True

    def _compute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        engine = self._engine
        engine.trt.executed.append(engine.what)
        # Whatever another context left in the working memory is overwritten.
        self._gpu.read(self._working, np.uint8, (self._needed,))[:] = len(engine.trt.executed) % 251
        feeds = {
            name: self._gpu.read(addresses[name], _DTYPES[kind], shapes[name]).copy()
            for name, kind in engine.inputs.items()
        }
        for name, values in feeds.items():
            assert np.isfinite(values).all() or name in ("cos", "sin"), name
        for name, found in zip(engine.outputs, engine.session.run(None, feeds), strict=True):
            values = np.asarray(found)
            self._gpu.read(addresses[name], values.dtype, values.shape)[:] = values
