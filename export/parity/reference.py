"""The checkpoint itself, run by transformers in FP32 with no more than a layer in memory.

Every module that owns weights gets them from the checkpoint right before it runs and loses them
right after, so a model of any size can be asked what it would say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np
import torch
from accelerate import init_empty_weights
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from export.checkpoint import Checkpoint
from export.names import our_name
from export.parity.answers import Answer
from idetex_edge.engines.protocol import Floats
from idetex_edge.preprocess import PatchedImage

_MODELS: Final[dict[str, type[PreTrainedModel]]] = {
    "qwen2_vl": Qwen2VLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
}

_TOGETHER: Final = 1024
"""The most tokens behind a picture that are read in one pass; attention grows with their square."""

Watch = Callable[[str, torch.Tensor, torch.Tensor], None]
"""Called with a layer's name (as in the checkpoint), its input [.., inputs] and its output."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What was computed.

    logits: of each answer's steps, float32 [steps, vocab]. keys, values: the largest |x| of the KV
    cache, [layers, kv heads].
    """

    logits: list[Floats]
    keys: Floats
    values: Floats

    def beside(self, other: Reading) -> Reading:
        """Join what was read of further answers."""
        keys, values = np.maximum(self.keys, other.keys), np.maximum(self.values, other.values)
        return Reading(self.logits + other.logits, keys, values)


class Reference:
    """A checkpoint that reads pictures and tokens."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._image_token = checkpoint.image_token_id
        with init_empty_weights(include_buffers=False):
            model = _MODELS[checkpoint.family](checkpoint.config)
        self._model = model.float().eval()
        visual = self._part("visual")
        visual.forward = _Remembering(visual.forward)
        for name, module in self._model.named_modules():
            if own := {key: value.shape for key, value in module.named_parameters(recurse=False)}:
                self._stream(f"{name}.", module, own)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Give the weights as they are held now."""
        return self._model.parameters()

    def features(self, patched: PatchedImage) -> Floats:
        """Run the vision encoder: float32 [merged tokens, hidden]."""
        with torch.inference_mode():
            found = self._part("visual")(
                torch.from_numpy(patched.patches), grid_thw=torch.tensor([[1, *patched.grid]])
            )
        return found.pooler_output.numpy()

    def read(self, answers: Sequence[Answer], patched: PatchedImage) -> Reading:
        """Read prompts with their answers; those that have the head in common share its pass."""
        readings = [self._pass(together, patched) for together in _together(answers)]
        return reduce(Reading.beside, readings)

    def _pass(self, answers: Sequence[Answer], patched: PatchedImage) -> Reading:
        """Read one head and what branches off it, branches hidden from each other."""
        head = answers[0].head
        grid = torch.tensor([[1, *patched.grid]])
        branches = [answer.read[len(head) :] for answer in answers]
        ids = torch.tensor([head + [token for branch in branches for token in branch]])
        kinds = (ids == self._image_token).int()
        mask = torch.ones(ids.shape[1], ids.shape[1]).tril().log()
        positions: list[torch.Tensor] = []
        kept: list[torch.Tensor] = []
        end = len(head)
        for answer in answers:
            start, end = end, end + len(answer.read) - len(head)
            mask[start:end, len(head) : start] = -torch.inf
            alone = torch.tensor([answer.read])
            found, _ = self._model.model.get_rope_index(
                alone, mm_token_type_ids=(alone == self._image_token).int(), image_grid_thw=grid
            )
            positions.append(found[..., len(head) if positions else 0 :])
            kept.append(torch.arange(end - answer.steps, end))
        with torch.inference_mode():
            logits, cache, *_ = self._model(
                input_ids=ids,
                pixel_values=torch.from_numpy(patched.patches),
                image_grid_thw=grid,
                mm_token_type_ids=kinds,
                attention_mask=mask[None, None],
                position_ids=torch.cat(positions, dim=-1),
                logits_to_keep=torch.cat(kept),
            ).to_tuple()
        parts = logits[0].split([answer.steps for answer in answers])
        return Reading(
            logits=[part.numpy() for part in parts],
            keys=np.stack([_largest(layer.keys) for layer in cache.layers]),
            values=np.stack([_largest(layer.values) for layer in cache.layers]),
        )

    @contextmanager
    def watching(self, watch: Watch) -> Generator[None]:
        """Show every matrix's inputs and outputs meanwhile."""
        hooks: list[Any] = []
        for name, module in self._model.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv3d) and name != "lm_head":
                layer = our_name(f"{name}.weight").removesuffix(".weight")
                hooks.append(module.register_forward_hook(_watching(watch, layer)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _part(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._model.model, name)

    def _stream(self, prefix: str, module: torch.nn.Module, own: dict[str, torch.Size]) -> None:
        empty = {
            # One number, however large the shape: modules ask for dtype and device.
            name: torch.nn.Parameter(torch.zeros(1).expand(shape), requires_grad=False)
            for name, shape in own.items()
        }

        def put(_: torch.nn.Module, __: object) -> None:
            for name in empty:
                weight = torch.from_numpy(self._checkpoint.weights.read(self._name(prefix + name)))
                setattr(module, name, torch.nn.Parameter(weight, requires_grad=False))

        def take(_: torch.nn.Module, __: object, ___: object) -> None:
            for name, parameter in empty.items():
                setattr(module, name, parameter)

        take(module, None, None)
        module.register_forward_pre_hook(put)
        module.register_forward_hook(take)

    def _name(self, name: str) -> str:
        ours = our_name(name)
        return (
            "text.embed_tokens.weight" if ours == "head.weight" and self._checkpoint.tied else ours
        )


def _together(answers: Sequence[Answer]) -> Iterator[Sequence[Answer]]:
    """Cut answers, in their order, into runs of one head and at most `_TOGETHER` tokens behind."""
    run: list[Answer] = []
    for answer in answers:
        behind = sum(len(other.read) - len(other.head) for other in [*run, answer])
        if run and (answer.head != run[0].head or behind > _TOGETHER):
            yield run
            run = []
        run.append(answer)
    if run:
        yield run


def _largest(cache: torch.Tensor) -> Floats:
    return cache[0].abs().amax(dim=(1, 2)).numpy()


class _Remembering:
    """The vision encoder's forward, computed once for a picture that is asked about often."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        # The tensor itself is kept, so that no other can lie at its address.
        self._last: tuple[torch.Tensor, Any] | None = None

    def __call__(self, pixels: torch.Tensor, **others: object) -> Any:  # noqa: ANN401
        if self._last is None or self._last[0].data_ptr() != pixels.data_ptr():
            self._last = (pixels, self._forward(pixels, **others))
        # A copy of the outer object: transformers puts its parts into it.
        return copy.copy(self._last[1])


def _watching(watch: Watch, layer: str) -> Callable[[torch.nn.Module, Any, Any], None]:
    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        watch(layer, inputs[0], output)

    return hook
