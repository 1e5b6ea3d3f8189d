"""The operators that graphs are built from, before a target's dialect is chosen.

Builders emit plain ONNX and five operators of our own domain, which `export.lowering` replaces by
what a target can run. All take and give float32:

    Linear(x, weight [outputs, inputs], bias?)            -> x W^T + b on the last axis
    Norm(x, residual?, weight, bias?)                     -> (norm(x + residual), x + residual);
        root mean square, or layer norm where there is a bias. Attribute `epsilon`.
    Activate(x)                                           -> as x
        attribute `kind`: silu, quick_gelu or gelu.
    PatchAttention(q, k, v [.., hidden], cos, sin, window_slots?, window_lengths?)
        -> mixed, as q; attributes `heads`, `head_dim`
    CachedAttention(qkv, past_key, past_value, cos, sin, rotary_rows, last_slots, total_length)
        -> (mixed, present_key, present_value); attributes `heads`, `kv_heads`, `head_dim`

A Linear's node is named as the checkpoint names the layer; that name stands in reports.
"""

from typing import Final

DOMAIN: Final = "idetex"
OPSETS: Final = {"": 24, DOMAIN: 1}

SIGMOID_SLOPES: Final = {"silu": 1.0, "quick_gelu": 1.702}
"""Activations that are x * sigmoid(slope * x)."""
