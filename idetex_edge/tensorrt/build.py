"""Building one engine of a graph with a TensorRT, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.memory import Limits
from idetex_edge.tensorrt.recipe import Profile
from idetex_edge.tensorrt.report import EngineReport, operators_of, read_messages
from idetex_edge.tensorrt.watching import watcher

Share = Callable[[float], None]
"""Told how much of a build is done, from 0 to 1."""


def in_percent(advance: Callable[[str, int, int], None], what: str) -> Share:
    """Show the build of an engine as a stage of long work."""
    return lambda share: advance(f"building {what}", int(100 * share), 100)


def build_engine(
    trt: Any,  # noqa: ANN401 (an untyped module)
    graph: Path,
    profiles: tuple[Profile, ...],
    limits: Limits,
    into: Path,
    share: Share,
) -> EngineReport:
    """Build a graph's engine into a file; raises EngineError when it cannot."""
    log = _log(trt)
    builder = trt.Builder(log)
    # TensorRT 11 and RTX know strongly typed networks only, and have no flag for it.
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise EngineError(f"{trt.__name__} cannot read {graph.name}: {' '.join(reason.split())}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = watcher(trt, share)
    if limits.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limits.workspace)
    if limits.streams:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for key in inputs & set(shapes):
            profile.set_shape(key, *shapes[key])
        config.add_optimization_profile(profile)
    with into.open("wb") as file:
        if not _serialise(trt, builder, network, config, file):
            raise EngineError(f"{trt.__name__} cannot build {graph.name}: {log.reason}")
    return read_messages(graph.stem, into.stat().st_size, operators_of(network), log.messages)


def _serialise(trt: Any, builder: Any, network: Any, config: Any, file: BinaryIO) -> bool:  # noqa: ANN401
    """Build, and write what is built as it comes: whole, it would lie in memory once more."""
    if not hasattr(trt, "IStreamWriter"):
        data = builder.build_serialized_network(network, config)
        return data is not None and file.write(memoryview(data)) == data.nbytes

    class Writer(trt.IStreamWriter):
        """TensorRT's own name for what is written to."""

        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: memoryview) -> int:
            return file.write(data)

    return bool(builder.build_serialized_network_to_stream(network, config, Writer()))


def _log(trt: Any) -> Any:  # noqa: ANN401
    class Log(trt.ILogger):
        """Keeps everything that the builder says."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.reason = "no reason given"

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            self.messages.append(message)
            # The first error says what is wrong, the others who passed it on.
            if severity == trt.ILogger.Severity.ERROR and self.reason == "no reason given":
                self.reason = " ".join(message.split())

    return Log()
