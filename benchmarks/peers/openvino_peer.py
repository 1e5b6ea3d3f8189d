"""OpenVINO GenAI: its vision-language pipeline with continuous batching, weights in 8 bits.

    .peers/openvino/bin/python -m benchmarks.peers.openvino_peer '{"prepared": ..., ...}'

KV cache, activations and threads as its own defaults choose them, but for the number of threads.
Its cache of prefixes is on by default; `cache` says whether it is here.
"""

# Its packages are in the peer's own environment.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
import openvino_genai as genai
from PIL import Image

from benchmarks.peers.prompting import Asked, OneByOne, Timed
from idetex_edge.measuring.worker import peak_memory, serve

_TAG: Final = "<ov_genai_image_0>"


class OpenVino:
    """Models made by `openvino_prepare.py`."""

    def __init__(self, folder: Path, threads: int, cache: bool) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = cache
        self._pipeline: Any = genai.VLMPipeline(
            folder, "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=threads
        )

    def ask(self, picture: Path, asked: Asked) -> Timed:
        """See `Peer.ask`."""
        started = time.perf_counter()
        with Image.open(picture) as image:
            pixels = openvino.Tensor(np.asarray(image.convert("RGB"))[None])
        read = time.perf_counter() - started
        wanted = genai.GenerationConfig()
        wanted.max_new_tokens = wanted.min_new_tokens = asked.tokens
        wanted.ignore_eos, wanted.do_sample, wanted.apply_chat_template = True, False, False
        text = asked.before + _TAG + asked.behind
        found = self._pipeline.generate(text, images=[pixels], generation_config=wanted)
        whole = time.perf_counter() - started
        metrics = found.perf_metrics
        vision = metrics.get_prepare_embeddings_duration().mean / 1000
        first = metrics.get_ttft().mean / 1000
        return Timed(
            vision=read + vision,
            first=read + first,
            whole=whole,
            prompt_tokens=metrics.get_num_input_tokens(),
            prefill=first - vision,
        )

    def peak_memory(self) -> int:
        """See `Peer.peak_memory`."""
        return peak_memory(os.getpid())


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    models = Path(settings["prepared"]) / f"openvino-{settings['weights']}"
    threads, cache = settings["threads"], settings["cache"]
    serve(lambda: OneByOne(OpenVino(models, threads, cache), Path(settings["bundle"])))
