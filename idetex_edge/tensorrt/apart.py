"""Building an engine in a process of its own, whose memory is all given back when it ends.

    python -m idetex_edge.tensorrt.apart   what to build as a line of JSON on stdin, left open

It prints JSON lines: how much is done, a number from 0 to 1, then the report, or `{"error": ..}`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from idetex_edge.bundle import Bundle
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.build import Share, build_engine
from idetex_edge.tensorrt.memory import Limits
from idetex_edge.tensorrt.recipe import EngineRecipe
from idetex_edge.tensorrt.report import EngineReport

_KILLED: Final = -9


def build_apart(
    trt: Any,  # noqa: ANN401 (an untyped module)
    bundle: Bundle,
    recipe: EngineRecipe,
    limits: Limits,
    into: Path,
    share: Share,
) -> EngineReport:
    """Build one of a bundle's engines into a file; raises EngineError when it cannot.

    When this process is killed the other one ends too.
    """
    order = {
        "module": trt.__name__,
        "graph": str(bundle.file(recipe.graph).resolve()),
        "profiles": recipe.profiles,
        "limits": asdict(limits),
        "into": str(into.resolve()),
    }
    command = [sys.executable, "-m", "idetex_edge.tensorrt.apart"]
    with subprocess.Popen(
        command,
        # Without a buffer nothing is left to be written to a process that has ended.
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        told: Any = None
        try:
            child.stdin.write(json.dumps(order).encode() + b"\n")
            for line in child.stdout:
                told = json.loads(line)
                if isinstance(told, float):
                    share(told)
        except BrokenPipeError:
            pass
        except BaseException:
            child.kill()
            raise
    if isinstance(told, dict) and "error" not in told:
        return _report(told)
    if isinstance(told, dict):
        raise EngineError(told["error"])
    into.unlink(missing_ok=True)
    raise EngineError(
        f"the builder of {recipe.graph} "
        + (
            "was killed, as the system does when memory runs out: end other programs or add swap"
            if child.returncode == _KILLED
            else f"ended with status {child.returncode}; run idetex-edge doctor"
        )
    )


def _report(told: dict[str, Any]) -> EngineReport:
    told["activations"], told["int8"] = tuple(told["activations"]), frozenset(told["int8"])
    return EngineReport(**told)


def _serve() -> None:
    # TensorRT and its plugins print as they like: what is said goes past them.
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()

    def say(told: object) -> None:
        print(json.dumps(told), file=said, flush=True)

    try:
        report = build_engine(
            importlib.import_module(order["module"]),
            Path(order["graph"]),
            order["profiles"],
            Limits(**order["limits"]),
            Path(order["into"]),
            say,
        )
    except (EngineError, ImportError, OSError) as error:
        say({"error": str(error)})
    else:
        say({**asdict(replace(report, int8=frozenset())), "int8": sorted(report.int8)})


def _end_with_input() -> None:
    """End with the process that asked, whose end of the pipe closes however it ends."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _serve()
