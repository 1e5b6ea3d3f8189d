"""What stands between a model's matrix products: norms, rotations, gates.

On a CPU these take longer than the products when each operation walks over memory by itself.
`fuse` has torch compile them into one walk each, forwards and backwards (a third more tokens a
second); it takes half a minute, so training does it and tests need not.
"""

import shutil
from collections.abc import Callable

import torch
import torch.nn.functional as nn_f
from torch import Tensor


def _rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    values = hidden.float()
    scale = torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + epsilon)
    return (values * scale * weight).to(hidden.dtype)


def _rotate(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = values.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return nn_f.silu(gate) * up


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "rms_norm": _rms_norm,
    "rotate": _rotate,
    "swiglu": _swiglu,
}


def fuse() -> None:
    """Compile all of them from now on, in this process; does nothing without a C++ compiler."""
    if shutil.which("g++") is None:
        return
    for name, plain in (("rms_norm", _rms_norm), ("rotate", _rotate), ("swiglu", _swiglu)):
        _FUNCTIONS[name] = torch.compile(plain, dynamic=True)


def rms_norm(norm: torch.nn.Module, hidden: Tensor) -> Tensor:
    """Hugging Face's RMSNorm modules, computed in float32, in the type of `hidden`."""
    weight, epsilon = norm.weight, norm.variance_epsilon
    return _FUNCTIONS["rms_norm"](hidden, weight, epsilon)


def rotate(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [..., head] by cos and sin [..., head / 2], halves interleaved last."""
    return _FUNCTIONS["rotate"](values, cos, sin)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) x up."""
    return _FUNCTIONS["swiglu"](gate, up)
