"""transformers: float32, attention by torch's fused kernel (`sdpa`), greedy, KV cache on.

python benchmarks/peers/transformers_peer.py '{"checkpoint": ..., "bundle": ..., "threads": ...}'
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.cache_utils import DynamicCache

from benchmarks.peers.prompting import Asked, OneByOne, Timed
from idetex_edge.bundle import load_manifest
from idetex_edge.measuring.worker import peak_memory, serve
from idetex_edge.positions import mrope_positions
from idetex_edge.vocabulary import IMAGE_PAD, VISION_END, VISION_START


class Transformers:
    """A checkpoint in transformers' own classes."""

    def __init__(self, checkpoint: Path, bundle: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        self._embedding = self._model.model.language_model.embed_tokens
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self._manifest = load_manifest(bundle)

    @torch.inference_mode()
    def ask(self, picture: Path, asked: Asked) -> Timed:
        """See `Peer.ask`."""
        started = time.perf_counter()
        with Image.open(picture) as image:
            patched = self._manifest.preprocessor.patchify(image.convert("RGB"))
        grid = torch.tensor([[1, *patched.grid]])
        pixels = torch.from_numpy(patched.patches)
        features = self._model.model.visual(pixels, grid_thw=grid).pooler_output
        encoded = time.perf_counter()
        pads = IMAGE_PAD * len(features)
        text = asked.before + VISION_START + pads + VISION_END + asked.behind
        ids = torch.tensor([self._tokenizer.encode(text, add_special_tokens=False).ids])
        embeddings = self._embedding(ids)
        embeddings[ids == self._manifest.tokens[IMAGE_PAD]] = features
        positions, following = mrope_positions(
            ids[0].numpy(),
            image_token=self._manifest.tokens[IMAGE_PAD],
            grid=patched.grid,
            merge_size=self._manifest.vision.merge,
        )
        cache = DynamicCache(config=self._model.config.get_text_config())
        token = self._step(embeddings, torch.from_numpy(positions)[:, None], cache)
        first = time.perf_counter()
        for place in range(following, following + asked.tokens - 1):
            token = self._step(self._embedding(token), torch.full((3, 1, 1), place), cache)
        ended = time.perf_counter()
        return Timed(
            encoded - started, first - started, ended - started, ids.shape[1], first - encoded
        )

    def peak_memory(self) -> int:
        """See `Peer.peak_memory`."""
        return peak_memory(os.getpid())

    def _step(
        self, embeddings: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """Run the language model on new embeddings [1, n, hidden]; the likeliest token [1, 1]."""
        ran = self._model.model.language_model(
            inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True
        )
        logits = self._model.lm_head(ran.last_hidden_state[:, -1])
        return logits.argmax(-1, keepdim=True)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    checkpoint, bundle = Path(settings["checkpoint"]), Path(settings["bundle"])
    serve(lambda: OneByOne(Transformers(checkpoint, bundle, settings["threads"]), bundle))
