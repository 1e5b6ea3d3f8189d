"""Memory and size of converting a big checkpoint: 2B-shaped, random weights, made here.

    python benchmarks/big_checkpoint.py --work DIR [--precision int4] [--keep]

Makes a Qwen2-VL of 2B's shape in BF16 (4.4 GB) under DIR, converts it to each precision for
onnx-cpu in a process of its own, scores a picture with the bundle in another, and prints what each
took: peak memory as the system counts it (ru_maxrss, which includes the mapped files' pages), and
the bundle's size. Prints the estimate for 7B's shape beside it. Bundles are allowed to fail their
proof, and its figures are printed: INT8 agrees with these weights (top-1 0.98, every choice), so
the way through export and runtime is sound; INT4, which rounds off 12 % of every product, does not
(0.35). Nor does transformers on random weights of that depth that were rounded by hand (0.35):
graphs add nothing to it, which `tests/test_rounded_weights.py` holds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from safetensors.torch import save_file
from skimage import data
from skimage.io import imsave

from benchmarks.shapes import NANO, Shapes, config_of, tensors_of
from export.bundling.graphs import Recipe
from export.bundling.sizes import sizes_of
from export.calibration.plan import Plan
from export.checkpoint import describe_checkpoint
from export.targets import find_target
from idetex_edge.cli.script import run

_CONVERT: Final = """
import sys
from pathlib import Path
from export.convert import Conversion, convert
from idetex_edge.cli.script import errors_in_one_line

model, output, precision = sys.argv[1:]
wanted = Conversion(model, Path(output), "onnx-cpu", precision, allow_degraded=True, steps=32)
with errors_in_one_line():
    convert(wanted, lambda *_: None)
"""
"""A conversion whose proof compares answers of 32 tokens: random weights never end one."""

_BRANCH_ENDS: Final = ("o_proj.weight", "attn.proj.weight", "down_proj.weight", "fc2.weight")
"""The matrices that end a residual branch: at the start of training they are made so much smaller
that all branches together weigh as much as one, and a layer's error stays the part that it is."""

_SHARD: Final = 400_000_000


def big_checkpoint(
    work: Annotated[Path, typer.Option(help="Folder for checkpoint and bundles.")],
    precision: Annotated[list[str] | None, typer.Option(help="Which; all if not given.")] = None,
    keep: Annotated[bool, typer.Option(help="Leave everything there at the end.")] = False,
) -> None:
    """Convert and run a 2B-shaped checkpoint, and print what it took."""
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, picture = work / "checkpoint-2B", work / "picture.png"
    if not checkpoint.is_dir():
        _make("2B", checkpoint)
    imsave(picture, data.astronaut()[:448, :448])
    for name in precision or ["int4", "int8"]:
        bundle = work / f"bundle-{name}"
        shutil.rmtree(bundle, ignore_errors=True)
        converted = _peak(["-c", _CONVERT, str(checkpoint), str(bundle), name])
        ran = _peak(["-m", "idetex_edge", "score", str(picture), "--bundle", str(bundle)])
        size = sum(path.stat().st_size for path in bundle.iterdir())
        proof = json.loads((bundle / "parity.json").read_text())
        figures = ("logits_error", "top1_agreement", "choice_agreement", "vision_cosine")
        typer.echo(
            f"2B {name}: converted with {converted / 1e9:.2f} GB at the peak, bundle "
            f"{size / 1e9:.2f} GB, scored a picture with {ran / 1e9:.2f} GB; "
            + ", ".join(f"{key} {proof[key]:.4f}" for key in figures)
        )
        for shape in ("2B", "7B"):
            typer.echo(f"  estimate for {shape}: {_estimate(shape, name, checkpoint)}")
    if not keep:
        shutil.rmtree(work)


def _make(shape: str, folder: Path) -> None:
    """Write a checkpoint shard by shard."""
    folder.mkdir()
    config = config_of(shape)
    config.save_pretrained(folder)
    for file in ("tokenizer.json", "preprocessor_config.json", "prompts.json"):
        shutil.copyfile(NANO / file, folder / file)
    chance = torch.Generator().manual_seed(0)
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    shapes = tensors_of(shape)
    for name, size in shapes.items():
        middle = 1.0 if len(size) == 1 and "norm" in name else 0.0
        values = torch.randn(size, generator=chance) * _spread(name, config)
        shard[name] = (values + middle).to(torch.bfloat16)
        file = f"model-{len(set(index.values())):05d}.safetensors"
        total = sum(tensor.nbytes for tensor in shard.values())
        if total > _SHARD or name == list(shapes)[-1]:
            save_file(shard, folder / file)
            index |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def _spread(name: str, config: Any) -> float:  # noqa: ANN401 (see `config_of`)
    """Give the standard deviation of a tensor's weights."""
    visual = ".visual." in name
    depth = config.vision_config.depth if visual else config.text_config.num_hidden_layers
    return 0.02 / (2 * depth) ** 0.5 if name.endswith(_BRANCH_ENDS) else 0.02


def _estimate(shape: str, precision: str, checkpoint: Path) -> str:
    target, form = find_target("onnx-cpu", precision)
    described = describe_checkpoint(checkpoint, config_of(shape), Shapes(shape))
    sizes = sizes_of(Recipe(described, target, form, Plan()))
    return f"{sizes.total / 1e9:.2f} GB on disk, {sizes.memory / 1e9:.1f} GB of memory"


def _peak(arguments: Sequence[str]) -> int:
    """Run Python on arguments; the bytes of memory that it took at its peak."""
    process = subprocess.Popen([sys.executable, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with status {status}")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    run(big_checkpoint)
