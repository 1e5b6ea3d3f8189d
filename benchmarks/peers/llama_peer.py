"""llama.cpp: its server with libmtmd, Q8_0 not repacked, flash attention as it chooses, one slot.

    .peers/llama.cpp/bin/python -m benchmarks.peers.llama_peer '{"prepared": ..., ...}'

Asked over its own interface on the loopback device. `cache` lets it keep a prompt's prefix for the
next.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.peers.catalogue import ENVIRONMENTS
from benchmarks.peers.prompting import Asked, OneByOne, Timed
from idetex_edge.measuring.worker import peak_memory, serve


class LlamaServer:
    """A llama-server on the files made by `llama_prepare.py`."""

    def __init__(self, folder: Path, threads: int, cache: bool) -> None:
        self._cache = cache
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self._address = f"http://127.0.0.1:{port}"
        server = str(ENVIRONMENTS / "llama.cpp" / "build" / "bin" / "llama-server")
        call = [server, "--model", str(folder / "model.gguf")]
        call += ["--mmproj", str(folder / "vision.gguf"), "--port", port]
        call += ["--threads", str(threads), "--threads-batch", str(threads)]
        call += ["--parallel", "1", "--ctx-size", "4096", "--batch-size", "2048"]
        call += ["--ubatch-size", "2048", "--cache-ram", "0", "--no-warmup"]
        # Its AMX kernels end the server with a segmentation fault at the first product (measured on
        # a guest with Sapphire Rapids' AMX); weights that are not repacked go past them.
        call += ["--no-repack"]
        self._process = subprocess.Popen(call, stdout=sys.stderr)
        while not self._ready():
            if self._process.poll() is not None:
                raise SystemExit(f"llama-server ended with status {self._process.returncode}")
            time.sleep(0.02)
        self._marker = self._get("/props").get("media_marker", "<__media__>")

    def ask(self, picture: Path, asked: Asked) -> Timed:
        """See `Peer.ask`."""
        started = time.perf_counter()
        coded = base64.b64encode(picture.read_bytes()).decode()
        text = asked.before + self._marker + asked.behind
        found = self._post(
            "/completion",
            {
                "prompt": {"prompt_string": text, "multimodal_data": [coded]},
                "n_predict": asked.tokens,
                "ignore_eos": True,
                "temperature": 0,
                "cache_prompt": self._cache,
            },
        )
        whole = time.perf_counter() - started
        timings = found["timings"]
        # Its decoding time covers the tokens behind the first; vision is part of the prompt's.
        first = whole - timings["predicted_ms"] / 1000
        return Timed(
            vision=None,
            first=first,
            whole=whole,
            prompt_tokens=timings["prompt_n"],
            prefill=None,
        )

    def peak_memory(self) -> int:
        """See `Peer.peak_memory`: the server's."""
        return peak_memory(self._process.pid)

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()

    def _ready(self) -> bool:
        try:
            return self._get("/health").get("status") == "ok"
        except urllib.error.URLError:
            return False

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._address + path) as answer:
            return json.load(answer)

    def _post(self, path: str, data: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._address + path,
            json.dumps(data).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    files = Path(settings["prepared"]) / f"llama-{settings['weights']}"
    servers: list[LlamaServer] = []

    def load() -> OneByOne:
        """Start the server."""
        servers.append(LlamaServer(files, settings["threads"], settings["cache"]))
        return OneByOne(servers[0], Path(settings["bundle"]))

    try:
        serve(load)
    finally:
        for server in servers:
            server.close()
