"""A LoRA adapter merged into its base, one tensor at a time, by peft's own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.lora.layer import Linear
from peft.utils.constants import CONFIG_NAME
from peft.utils.other import get_pattern_key

from export.graphs.rows import WeightSource
from export.names import our_name
from export.tensors import TensorFile
from idetex_edge.errors import ExportError

_WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."
_NAME: Final = "default"


class AdaptedWeights:
    """A base's tensors with an adapter merged in as each is read."""

    def __init__(self, base: WeightSource, folder: Path) -> None:
        """Open an adapter's folder.

        Raises ExportError when it is no LoRA, or when it was made for another base: a tensor that
        the base lacks, or one of another shape.
        """
        self._base = base
        self._config = _config(folder)
        self._file = TensorFile(folder / _WEIGHTS)
        stat = (folder / _WEIGHTS).stat()
        self.identity = (base.identity, str(folder.resolve()), stat.st_size, stat.st_mtime_ns)
        self._parts: dict[str, dict[str, str]] = {}
        self._modules: dict[str, str] = {}
        self._whole: dict[str, str] = {}
        for key in self._file.names:
            self._place(key)
        self._check(folder)

    def __contains__(self, name: str) -> bool:
        return name in self._base

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape without reading it."""
        return self._base.shape(name)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read one tensor as float32, merged."""
        if name in self._whole:
            return self._tensor(self._whole[name]).numpy()
        weight = self._base.read(name)
        if name not in self._parts:
            return weight
        with torch.inference_mode():
            return self._layer(name, weight).numpy()

    def _layer(self, name: str, weight: npt.NDArray[np.float32]) -> torch.Tensor:
        outputs, inputs = weight.shape
        base = torch.nn.Linear(inputs, outputs, bias=False, device="meta")
        base.weight = torch.nn.Parameter(torch.from_numpy(weight).clone(), requires_grad=False)
        module = self._modules[name]
        config = self._config
        rank = _of_module(config.rank_pattern, module, config.r)
        alpha = _of_module(config.alpha_pattern, module, config.lora_alpha)
        layer: Any = Linear(base, _NAME, config=config, r=rank, lora_alpha=alpha)
        parts = {part: self._tensor(key) for part, key in self._parts[name].items()}
        unknown = layer.load_state_dict(parts, strict=False).unexpected_keys
        if unknown:
            raise ExportError(f"the adapter has {unknown[0]} for {module}, which peft cannot merge")
        layer.merge()
        return base.weight

    def _tensor(self, key: str) -> torch.Tensor:
        return self._file.read(key)

    def _place(self, key: str) -> None:
        name = key.removeprefix(_PREFIX)
        module, found, part = name.partition(".lora_")
        if not found:
            self._whole[our_name(name)] = key
            return
        # peft keeps several adapters in a layer, by name; on disk the name is left out.
        kind, _, rest = part.partition(".")
        full = f"lora_{kind}.{_NAME}.{rest or 'weight'}"
        ours = our_name(f"{module}.weight")
        self._parts.setdefault(ours, {})[full] = key
        self._modules[ours] = module

    def _check(self, folder: Path) -> None:
        wrong = [name for name in (*self._parts, *self._whole) if name not in self._base]
        for name, parts in self._parts.items():
            if name in self._base:
                outputs, inputs = (*self._base.shape(name), 0)[:2]
                down = parts.get(f"lora_A.{_NAME}.weight")
                up = parts.get(f"lora_B.{_NAME}.weight")
                if down is None or up is None:
                    raise ExportError(f"adapter {folder} is not whole: {name} lacks a LoRA matrix")
                sizes = (self._size(up)[0], self._size(down)[1])
                if sizes != (outputs, inputs):
                    wrong.append(name)
        wrong += [
            n
            for n, key in self._whole.items()
            if n in self._base and self._size(key) != self._base.shape(n)
        ]
        if wrong:
            base = self._config.base_model_name_or_path
            raise ExportError(
                f"adapter {folder} was made for another base ({base}): {wrong[0]} does not fit; "
                "give --model that base"
            )

    def _size(self, key: str) -> tuple[int, ...]:
        return self._file.shape(key)


def _of_module(pattern: dict[str, int] | None, module: str, default: int) -> int:
    """Give the rank or alpha that a module has for itself, or the one that all share."""
    own = pattern or {}
    return own.get(get_pattern_key(list(own), module), default)


def _config(folder: Path) -> LoraConfig:
    # peft would look for what is not here on the hub.
    if not (folder / CONFIG_NAME).is_file():
        raise ExportError(f"{folder} is not an adapter: it has no {CONFIG_NAME}")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"{folder} is not an adapter: {reason}") from None
    if not isinstance(config, LoraConfig):
        raise ExportError(f"adapter {folder} is {config.peft_type}; only LoRA can be merged")
    # Merging has no use for the base's own files, which may be anywhere.
    config.inference_mode = True
    return config
