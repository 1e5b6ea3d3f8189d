"""TensorRT's runtime on one GPU: engines read, and executed with addresses that we choose.

TensorRT and TensorRT-RTX have nearly the same Python interface; how they differ stands in
`builders.FLAVOURS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from idetex_edge.cuda.driver import Device
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.builders import FLAVOURS

Shape = tuple[int, ...]


class Program:
    """An engine's execution context for one of its optimisation profiles.

    inputs, outputs: what it takes and gives, by name. It may be given only addresses that stay
    valid until the device has been waited for.
    """

    def __init__(self, device: Device, engine: Any, context: Any, profile: int, what: str) -> None:  # noqa: ANN401
        self._device, self._engine, self._context, self._what = device, engine, context, what
        self._profile = profile
        if not context.set_optimization_profile_async(profile, device.stream):
            raise EngineError(f"TensorRT cannot use profile {profile} of the {what} engine")
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = {n for n in names if str(engine.get_tensor_mode(n)).endswith("INPUT")}
        self.inputs, self.outputs = frozenset(inputs), frozenset(names) - inputs

    def largest(self, name: str) -> Shape:
        """The largest shape of an input that the profile allows."""
        return tuple(self._engine.get_tensor_profile_shape(name, self._profile)[2])

    def run(self, addresses: Mapping[str, int], shapes: Mapping[str, Shape]) -> None:
        """Put the engine's work on the device's stream.

        addresses: device memory of every input and output. shapes: of every input. Raises
        EngineError when something is missing or TensorRT refuses it.
        """
        for name in self.inputs:
            if not self._context.set_input_shape(name, shapes[name]):
                raise EngineError(
                    f"the {self._what} engine was not built for {name} of {list(shapes[name])}; "
                    "build it again with this version"
                )
        for name in self.inputs | self.outputs:
            if not self._context.set_tensor_address(name, addresses[name]):
                raise EngineError(f"TensorRT does not take an address for {name}")
        if not self._context.execute_async_v3(self._device.stream):
            raise EngineError(f"TensorRT failed in the {self._what} engine; its log says why")


class Runtime:
    """Reads engines for one device.

    kernels: what an earlier process's `compiled` gave, for RTX, which compiles as it runs.
    """

    def __init__(self, trt: Any, device: Device, kernels: bytes | None) -> None:  # noqa: ANN401
        self._trt, self._device = trt, device
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)
        self._kernels = kernels
        self._cache: Any = None
        self._working = (0, 0)

    def read(self, data: memoryview, what: str) -> Any:  # noqa: ANN401
        """An engine from its bytes, whose hash was checked; raises EngineError when it is none."""
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(
                f"{self._trt.__name__} {self._trt.__version__} cannot read the {what} engine on "
                f"{self._device.name}; build it on this machine: idetex-edge build"
            )
        if engine.streamable_weights_size:
            # Built for a GPU that cannot hold its weights: as many of them as fit are left there.
            engine.weight_streaming_budget_v2 = engine.get_weight_streaming_automatic_budget()
        return engine

    def reserve(self, engines: Iterable[Any]) -> None:
        """Make the working memory that all contexts of these engines share.

        They may, since everything runs on one stream, one after the other. It is freed with this.
        """
        size = max(
            engine.get_device_memory_size_for_profile_v2(profile)
            for engine in engines
            for profile in range(engine.num_optimization_profiles)
        )
        self._working = (self._device.allocate(size, self), size)

    def program(self, engine: Any, profile: int, what: str) -> Program:  # noqa: ANN401
        """A context of a reserved engine for one profile; EngineError where memory does not do."""
        ours = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not FLAVOURS[self._trt.__name__].keeps:
            context = engine.create_execution_context(ours)
        else:
            config = engine.create_runtime_config()
            if self._cache is None:
                self._cache = config.create_runtime_cache()
                if self._kernels is not None:
                    self._cache.deserialize(self._kernels)
            config.set_runtime_cache(self._cache)
            config.set_execution_context_allocation_strategy(ours)
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = engine.create_execution_context(config)
        if context is None:
            raise EngineError(
                f"this GPU has too little memory for the {what} engine; close other programs, or "
                "use a smaller precision"
            )
        context.set_device_memory(*self._working)
        return Program(self._device, engine, context, profile, what)

    def compiled(self) -> bytes | None:
        """What was compiled while running; None where nothing is."""
        return None if self._cache is None else bytes(self._cache.serialize())
