"""The peers by name: where each lives, and what has to be made of a checkpoint for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import ROOT
from idetex_edge.measuring.contenders import Contender

ENVIRONMENTS: Final = ROOT / ".peers"
"""Made by `install.py`."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way of running a peer.

    environment: folder in `ENVIRONMENTS`; None for the Python that runs the benchmark. script: its
    worker in this folder. settings: what its worker is told. prepare: the script that makes the
    files it runs of a checkpoint, in its own environment; None where it takes the checkpoint. gpu:
    whether it needs one of NVIDIA's.
    """

    environment: str | None
    script: str
    settings: Mapping[str, str | bool]
    prepare: str | None = None
    gpu: bool = False

    @property
    def python(self) -> Path:
        """The interpreter that its worker runs in."""
        if self.environment is None:
            return Path(sys.executable)
        return ENVIRONMENTS / self.environment / "bin" / "python"


def _openvino(weights: str, cache: bool) -> Peer:
    settings = {"weights": weights, "cache": cache}
    return Peer("openvino", "openvino_peer", settings, "openvino_prepare")


def _llama(weights: str, cache: bool) -> Peer:
    settings = {"weights": weights, "cache": cache}
    return Peer("llama.cpp", "llama_peer", settings, "llama_prepare")


PEERS: Final[Mapping[str, Peer]] = {
    "transformers": Peer(None, "transformers_peer", {"device": "cpu", "floats": "float32"}),
    "transformers-cuda": Peer(
        None, "transformers_peer", {"device": "cuda", "floats": "bfloat16"}, gpu=True
    ),
    "openvino-int8": _openvino("int8", cache=False),
    "openvino-int8+cache": _openvino("int8", cache=True),
    "llama.cpp-q8_0": _llama("q8_0", cache=False),
    "llama.cpp-q8_0+cache": _llama("q8_0", cache=True),
}
"""`+cache` keeps the prefix of a picture's first request for its others."""


def on_processors() -> list[str]:
    """The peers that a processor runs: beside one on a GPU, no other would be the fastest."""
    return [name for name, peer in PEERS.items() if not peer.gpu]


def missing(name: str) -> str | None:
    """Why a peer cannot run here; None if it can."""
    peer = PEERS[name]
    if peer.gpu and not _gpu():
        return "needs an NVIDIA GPU and a torch that was built for CUDA"
    if peer.python.exists():
        return None
    return f"not installed; run python benchmarks/peers/install.py {peer.environment}"


def _gpu() -> bool:
    # Imported here: it takes seconds, and most calls ask for no GPU.
    import torch

    return torch.cuda.is_available()


def peer_contender(
    name: str, model: str, checkpoint: Path, bundle: Path, prepared: Path, threads: int
) -> Contender:
    """A peer on a checkpoint, whose prompts and sizes `bundle` gives."""
    peer = PEERS[name]
    settings = json.dumps(
        {
            "checkpoint": str(checkpoint),
            "bundle": str(bundle),
            "prepared": str(prepared),
            "threads": threads,
            **peer.settings,
        }
    )
    command = (str(peer.python), "-m", f"benchmarks.peers.{peer.script}", settings)
    return Contender(name, model, command, peer=True)
