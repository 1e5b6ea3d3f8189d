"""Memory and size of converting a big checkpoint: 2B-shaped, random weights, made here.

    python benchmarks/big_checkpoint.py --work DIR [--precision int4] [--keep]

Makes a Qwen2-VL of 2B's shape in BF16 (4.4 GB) under DIR, converts it to each precision for
onnx-cpu in a process of its own, scores a picture with the bundle in another, and prints what each
took: peak memory as the system counts it (ru_maxrss, which includes the mapped files' pages), and
the bundle's size. Prints the estimate for 7B's shape beside it. Bundles are allowed to fail their
proof, and its figures are printed: INT8 agrees with these weights (top-1 0.98, every choice), so
the way through export and runtime is sound; INT4, which rounds off 12 % of every product, does not
(0.35).
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
from accelerate import init_empty_weights
from safetensors.torch import save_file
from skimage import data
from skimage.io import imsave
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from export.bundling.graphs import Recipe
from export.bundling.sizes import sizes_of
from export.calibration.plan import Plan
from export.checkpoint import describe_checkpoint
from export.graphs.rows import Array
from export.names import our_name
from export.targets import find_target
from idetex_edge.cli.script import run

_NANO: Final = Path(__file__).parents[1] / "checkpoints" / "nano"
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
_VISION: Final = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
_TEXT: Final[dict[str, dict[str, Any]]] = {
    "2B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "max_position_embeddings": 4096,
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "max_position_embeddings": 4096,
    },
}


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
        for shape in _TEXT:
            typer.echo(f"  estimate for {shape}: {_estimate(shape, name, checkpoint)}")
    if not keep:
        shutil.rmtree(work)


def _config(shape: str) -> Qwen2VLConfig:
    own = json.loads((_NANO / "config.json").read_text())
    tokens = {name: own[name] for name in own if name.endswith("_token_id")}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = _TEXT[shape]
    return Qwen2VLConfig(
        text_config={
            **text,
            "rope_parameters": rope,
            "bos_token_id": None,
            "eos_token_id": own["text_config"]["eos_token_id"],
        },
        vision_config={**_VISION, "hidden_size": text["hidden_size"]},
        tie_word_embeddings=shape == "2B",
        **tokens,
    )


def _shapes(shape: str) -> dict[str, Sequence[int]]:
    with init_empty_weights(include_buffers=False):
        model = Qwen2VLForConditionalGeneration(_config(shape))
    names = {name: list(value.shape) for name, value in model.named_parameters()}
    return {name: size for name, size in names.items() if shape != "2B" or name != "lm_head.weight"}


def _make(shape: str, folder: Path) -> None:
    """Write a checkpoint shard by shard."""
    folder.mkdir()
    _config(shape).save_pretrained(folder)
    for file in ("tokenizer.json", "preprocessor_config.json", "prompts.json"):
        shutil.copyfile(_NANO / file, folder / file)
    chance = torch.Generator().manual_seed(0)
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    shapes = _shapes(shape)
    for name, size in shapes.items():
        middle = 1.0 if len(size) == 1 and "norm" in name else 0.0
        values = torch.randn(size, generator=chance) * _spread(name, shape)
        shard[name] = (values + middle).to(torch.bfloat16)
        file = f"model-{len(set(index.values())):05d}.safetensors"
        total = sum(tensor.nbytes for tensor in shard.values())
        if total > _SHARD or name == list(shapes)[-1]:
            save_file(shard, folder / file)
            index |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def _spread(name: str, shape: str) -> float:
    """Give the standard deviation of a tensor's weights."""
    depth = _VISION["depth"] if ".visual." in name else _TEXT[shape]["num_hidden_layers"]
    return 0.02 / (2 * depth) ** 0.5 if name.endswith(_BRANCH_ENDS) else 0.02


class _Shapes:
    """A checkpoint's tensors as shapes alone: enough to tell sizes."""

    def __init__(self, shape: str) -> None:
        self.identity = shape
        self._sizes = {our_name(name): tuple(size) for name, size in _shapes(shape).items()}

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def shape(self, name: str) -> tuple[int, ...]:
        return self._sizes[name]

    def read(self, name: str) -> Array:
        raise NotImplementedError("shapes alone hold no numbers")


def _estimate(shape: str, precision: str, checkpoint: Path) -> str:
    target, form = find_target("onnx-cpu", precision)
    described = describe_checkpoint(checkpoint, _config(shape), _Shapes(shape))
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
