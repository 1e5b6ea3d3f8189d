"""transformers: attention by torch's fused kernel (`sdpa`), greedy, KV cache on.

    python benchmarks/peers/transformers_peer.py '{"checkpoint": ..., "bundle": ..., "threads": ...,
        "device": "cpu", "floats": "float32"}'

A checkpoint that is a configuration alone is made with random weights, for its speed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.cache_utils import DynamicCache

from benchmarks.peers.prompting import Asked, OneByOne, Timed
from idetex_edge.bundle import load_manifest
from idetex_edge.measuring.worker import peak_memory, serve
from idetex_edge.positions import mrope_positions
from idetex_edge.vocabulary import IMAGE_PAD, VISION_END, VISION_START


class Transformers:
    """A checkpoint in transformers' own classes."""

    def __init__(
        self, checkpoint: Path, bundle: Path, threads: int, device: str, floats: str
    ) -> None:
        torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._model = _model(checkpoint, self._device, getattr(torch, floats)).eval()
        self._embedding = self._model.model.language_model.embed_tokens
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self._manifest = load_manifest(bundle)

    @torch.inference_mode()
    def ask(self, picture: Path, asked: Asked) -> Timed:
        """See `Peer.ask`."""
        started = time.perf_counter()
        with Image.open(picture) as image:
            patched = self._manifest.preprocessor.patchify(image.convert("RGB"))
        grid = torch.tensor([[1, *patched.grid]], device=self._device)
        pixels = torch.from_numpy(patched.patches).to(self._device)
        features = self._model.model.visual(pixels, grid_thw=grid).pooler_output
        encoded = self._now()
        pads = IMAGE_PAD * len(features)
        text = asked.before + VISION_START + pads + VISION_END + asked.behind
        told = self._tokenizer.encode(text, add_special_tokens=False).ids
        ids = torch.tensor([told], device=self._device)
        embeddings = self._embedding(ids)
        embeddings[ids == self._manifest.tokens[IMAGE_PAD]] = features
        positions, following = mrope_positions(
            np.array(told),
            image_token=self._manifest.tokens[IMAGE_PAD],
            grid=patched.grid,
            merge_size=self._manifest.vision.merge,
        )
        cache = DynamicCache(config=self._model.config.get_text_config())
        where = torch.from_numpy(positions)[:, None].to(self._device)
        token = self._step(embeddings, where, cache)
        first = self._now()
        for place in range(following, following + asked.tokens - 1):
            token = self._step(self._embedding(token), self._place(place), cache)
        ended = self._now()
        return Timed(
            encoded - started, first - started, ended - started, ids.shape[1], first - encoded
        )

    def peak_memory(self) -> int:
        """See `Peer.peak_memory`."""
        return peak_memory(os.getpid())

    def _place(self, place: int) -> torch.Tensor:
        return torch.full((3, 1, 1), place, device=self._device)

    def _now(self) -> float:
        """The time, once all that was asked for is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _step(
        self, embeddings: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """Run the language model on new embeddings [1, n, hidden]; the likeliest token [1, 1]."""
        ran = self._model.model.language_model(
            inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True
        )
        logits = self._model.lm_head(ran.last_hidden_state[:, -1])
        return logits.argmax(-1, keepdim=True)


def _model(
    checkpoint: Path, device: torch.device, floats: torch.dtype
) -> Qwen2_5_VLForConditionalGeneration:
    if any(checkpoint.glob("*.safetensors")):
        with torch.device(device):
            return Qwen2_5_VLForConditionalGeneration.from_pretrained(
                checkpoint, dtype=floats, attn_implementation="sdpa"
            )
    config = Qwen2_5_VLConfig.from_pretrained(checkpoint, attn_implementation="sdpa", dtype=floats)
    before = torch.get_default_dtype()
    torch.set_default_dtype(floats)
    try:
        with torch.device(device):
            return Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    checkpoint, bundle = Path(settings["checkpoint"]), Path(settings["bundle"])
    how = settings["threads"], settings["device"], settings["floats"]
    serve(lambda: OneByOne(Transformers(checkpoint, bundle, *how), bundle))
