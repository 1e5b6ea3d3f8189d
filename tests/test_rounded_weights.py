"""Graphs with rounded weights against transformers on weights rounded by hand.

What is left between the two is no rounding: a packing, scale or order that is wrong would show, and
in a deep model it would grow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import tiny
import torch
from conftest import quiet
from safetensors.torch import load_file, save_file

from export.bundling.graphs import Recipe
from export.bundling.write import write_draft
from export.calibration.plan import Plan
from export.checkpoint import open_checkpoint
from export.parity.measure import measure_parity
from export.parity.pictures import photographs
from export.parity.reference import Reference
from export.parity.report import Parity
from export.targets import find_target
from idetex_edge.engines.onnx import OnnxEngine

DEPTH = 28
"""Layers of Qwen2-VL-2B and 7B."""


@pytest.fixture(scope="module")
def deep_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As deep as the big ones, and narrow; branches as small as at the start of training."""
    text = {"num_hidden_layers": DEPTH, "hidden_size": 224, "num_attention_heads": 7}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    more = {"num_key_value_heads": 1, "rope_parameters": rope, "max_position_embeddings": 512}
    folder = tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("deep") / "deep", text={**text, **more})
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in tensors:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name] *= (2 * DEPTH) ** -0.5
    save_file(tensors, path, metadata={"format": "pt"})
    return tiny.ask_briefly(folder)


@pytest.fixture
def as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime computes what the graph says.

    Optimised, it joins DequantizeLinear with MatMul and rounds what it multiplies to 8 bits too.
    """
    options: Any = ort.SessionOptions

    def plain() -> object:
        made = options()
        made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return made

    monkeypatch.setattr(ort, "SessionOptions", plain)


def rounded(weight: torch.Tensor, bits: int, block: int) -> torch.Tensor:
    """The nearest of 2^bits - 1 levels, symmetric, the largest of each block of a row the last."""
    limit = 2 ** (bits - 1) - 1
    rows = []
    for row in weight.double().reshape(len(weight), -1):
        parts = []
        for part in row.split(block):
            step = part.abs().max().item() / limit or 1.0
            parts.append(torch.round(part / step) * step)
        rows.append(torch.cat(parts))
    return torch.stack(rows).reshape(weight.shape).float()


def rounded_copy(source: Path, folder: Path, bits: int, block: int) -> Path:
    """A checkpoint of rounded weights: vision in 8 bits by 32, the language model as is said."""
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    for name, weight in tensors.items():
        if "embed_tokens" in name:
            tensors[name] = weight.half().float()
        elif weight.ndim > 1:
            tensors[name] = rounded(weight, *((8, 32) if "visual" in name else (bits, block)))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def compared(checkpoint: Path, reference: Path, precision: str, folder: Path) -> Parity:
    """A checkpoint's graphs in a precision, as unproven as they are, against another checkpoint."""
    recipe = Recipe(open_checkpoint(checkpoint), *find_target("onnx-standard", precision), Plan())
    folder.mkdir()
    bundle = write_draft(recipe, folder, quiet)
    pictures = photographs(None, 0).proof[:1]
    theirs = Reference(open_checkpoint(reference))
    return measure_parity(theirs, bundle, OnnxEngine(bundle), pictures, 24, quiet)


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize(
    ("precision", "bits", "block"), [("int4", 4, 128), ("int4-32", 4, 32), ("int8-weights", 8, 32)]
)
def test_rounding_is_all_that_is_lost(
    precision: str, bits: int, block: int, deep_checkpoint: Path, tmp_path: Path
) -> None:
    copy = rounded_copy(deep_checkpoint, tmp_path / "rounded", bits, block)
    same = compared(deep_checkpoint, copy, precision, tmp_path / "same")
    assert same.logits_error < 1e-4
    assert same.top1_agreement == same.choice_agreement == 1.0
    assert same.vision_cosine > 0.999999
    other = compared(deep_checkpoint, deep_checkpoint, precision, tmp_path / "other")
    assert other.logits_error > 20 * same.logits_error
