"""The checkpoint itself, run by transformers in FP32 with no more than a layer in memory.

Every module that owns weights gets them from the checkpoint right before it runs and loses them
right after, so a model of any size can be asked what it would say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from export.checkpoint import Checkpoint
from export.names import our_name
from idetex_edge.engines.protocol import Floats
from idetex_edge.preprocess import PatchedImage

_MODELS: Final[dict[str, type[PreTrainedModel]]] = {
    "qwen2_vl": Qwen2VLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
}

Watch = Callable[[str, torch.Tensor], None]
"""Called with a layer's name (as in the checkpoint) and its input, [.., inputs]."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What was computed.

    logits: float32 [steps, vocab]. keys, values: each layer's KV cache, [kv heads, tokens, D].
    """

    logits: Floats
    keys: list[Floats]
    values: list[Floats]


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

    def read(self, tokens: list[int], patched: PatchedImage, steps: int) -> Reading:
        """Read a prompt and its answer in one pass, for the logits of the last `steps` tokens."""
        ids = torch.tensor([tokens])
        with torch.inference_mode():
            logits, cache, *_ = self._model(
                input_ids=ids,
                pixel_values=torch.from_numpy(patched.patches),
                image_grid_thw=torch.tensor([[1, *patched.grid]]),
                mm_token_type_ids=(ids == self._image_token).int(),
                logits_to_keep=steps,
            ).to_tuple()
        return Reading(
            logits=logits[0].numpy(),
            keys=[layer.keys[0].numpy() for layer in cache.layers],
            values=[layer.values[0].numpy() for layer in cache.layers],
        )

    @contextmanager
    def watching(self, watch: Watch) -> Generator[None]:
        """Show every matrix's inputs meanwhile."""
        hooks: list[Any] = []
        for name, module in self._model.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv3d) and name != "lm_head":
                layer = our_name(f"{name}.weight").removesuffix(".weight")
                hooks.append(module.register_forward_pre_hook(_watching(watch, layer)))
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


def _watching(watch: Watch, layer: str) -> Callable[[torch.nn.Module, Any], None]:
    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        watch(layer, inputs[0])

    return hook
