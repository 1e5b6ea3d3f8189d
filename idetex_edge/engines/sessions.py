"""ONNX Runtime's sessions on any of the providers that `providers.PROVIDERS` lists."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import onnxruntime as ort

from idetex_edge.engines.providers import PROVIDERS
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.recipe import Profile


def require_provider(engine: str) -> None:
    """Raise EngineError, saying what to install, where an engine's provider is not to be had."""
    provider = PROVIDERS[engine]
    if provider.plugin:
        _devices(engine)
    elif provider.name not in ort.get_available_providers():
        raise EngineError(
            f"the {engine} engine needs {provider.name}, which ONNX Runtime {ort.__version__} here "
            f"lacks: {provider.install}"
        )


def make_session(
    engine: str, path: Path, threads: int | None, told: Mapping[str, str]
) -> ort.InferenceSession:
    """Load a graph on an engine's provider; raises EngineError when it does not run there.

    threads: of the CPU; None for all physical cores. told: provider options beside the table's.
    """
    provider = PROVIDERS[engine]
    options = ort.SessionOptions()
    options.log_severity_level = 4  # What fails is raised, once, by us.
    options.intra_op_num_threads = threads or 0
    # Threads that spin while idle take cores (and power) from the other session and from other
    # programs: on a busy machine everything runs at half the speed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    everything = {**provider.options, **told}
    places: list[Any] | None = None
    if provider.plugin:
        options.add_provider_for_devices(_devices(engine), everything)
    else:
        places = [(provider.name, everything)]
        if provider.apart:
            # CUDA's wheels are found only so; where they are not, it prints what is raised below.
            with redirect_stdout(io.StringIO()):
                ort.preload_dlls()
    try:
        session = ort.InferenceSession(path, options, providers=places)
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime {ort.__version__} cannot load {path.name}: {str(error).splitlines()[0]}"
        ) from None
    # It falls back to the CPU with no more than a line in its log.
    if provider.name not in session.get_providers():
        raise EngineError(
            f"the {engine} engine finds no GPU or not all of CUDA's libraries; see idetex-edge "
            f"doctor, and {provider.install}"
        )
    return session


def profile_options(profiles: Sequence[Profile]) -> dict[str, str]:
    """The shapes that the RTX provider builds for, as it wants to be told them.

    A profile is a run of `input:2x3,...`; inputs that come again begin the next one.
    """

    def written(bound: int) -> str:
        return ",".join(
            f"{name}:{'x'.join(str(size) for size in shapes[bound])}"
            for profile in profiles
            for name, shapes in profile.items()
        )

    bounds = ("min", "opt", "max")
    return {f"nv_profile_{bound}_shapes": written(at) for at, bound in enumerate(bounds)}


def run_options(profile: int | None) -> Any:  # noqa: ANN401 (an untyped class)
    """How to run in one of the profiles that a session was made for; None where it has none."""
    if profile is None:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry("nv_profile_index", str(profile))
    return options


def _devices(engine: str) -> list[Any]:
    provider = PROVIDERS[engine]
    try:
        _register(provider.name, provider.plugin)
    except ImportError:
        raise EngineError(
            f"the {engine} engine needs {provider.name}, a plugin of ONNX Runtime that is not "
            f"installed: {provider.install}"
        ) from None
    except Exception as error:
        reason = str(error).splitlines()[0].rpartition("with error: ")[2]
        raise EngineError(f"the {engine} engine cannot load {provider.plugin}: {reason}") from None
    found = [device for device in ort.get_ep_devices() if device.ep_name == provider.name]
    if not found:
        raise EngineError(f"the {engine} engine finds no GPU that {provider.name} supports")
    return found[:1]


@cache
def _register(name: str, plugin: str) -> None:
    """Once in a process: ONNX Runtime refuses a name that it has."""
    ort.register_execution_provider_library(name, import_module(plugin).get_library_path())
