"""Averaging checkpoints that were trained on from the same weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import quiet
from edit_json import edit_json
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration
from typer.testing import CliRunner

from export.__main__ import app
from export.averaging import Shares, average
from export.checkpoint import open_checkpoint
from idetex_edge.errors import ExportError, OutputError

WEIGHTS = "model.safetensors"


@pytest.fixture
def runs(tiny_checkpoint: Path, tmp_path: Path) -> list[Path]:
    """Three checkpoints that differ in the values of their weights alone."""
    folders = [Path(shutil.copytree(tiny_checkpoint, tmp_path / f"run{i}")) for i in range(3)]
    for number, folder in enumerate(folders):
        generator = torch.Generator().manual_seed(number)
        moved = {
            name: value + 0.02 * torch.randn(value.shape, generator=generator)
            for name, value in load_file(folder / WEIGHTS).items()
        }
        save_file(moved, folder / WEIGHTS, metadata={"format": "pt"})
    return folders


def test_each_part_has_its_own_shares(runs: list[Path], tmp_path: Path) -> None:
    average(runs, Shares([3, 1, 0], [0, 0.5, 0.5]), tmp_path / "mean", quiet)
    one, two, three = (load_file(folder / WEIGHTS) for folder in runs)
    for name, value in load_file(tmp_path / "mean" / WEIGHTS).items():
        language = 0.75 * one[name] + 0.25 * two[name]
        vision = 0.5 * two[name] + 0.5 * three[name]
        torch.testing.assert_close(value, vision if "visual." in name else language)
    assert "visual.blocks.0.attn.qkv.weight" in one


def test_transformers_load_the_mean_and_everything_lies_beside_it(
    runs: list[Path], tmp_path: Path
) -> None:
    average(runs, Shares([1, 1, 1], [1, 1, 1]), tmp_path / "mean", quiet)
    load = Qwen2_5_VLForConditionalGeneration.from_pretrained
    mean = load(tmp_path / "mean").state_dict()
    whole = [load(folder).state_dict() for folder in runs]
    for name, value in mean.items():
        torch.testing.assert_close(value, sum(w[name] for w in whole) / 3)
    assert {p.name for p in (tmp_path / "mean").iterdir()} == {p.name for p in runs[0].iterdir()}


def test_shards_keep_their_names_and_bfloat16_its_format(runs: list[Path], tmp_path: Path) -> None:
    tensors = load_file(runs[0] / WEIGHTS)
    halves = sorted(tensors)[::2], sorted(tensors)[1::2]
    (runs[0] / WEIGHTS).unlink()
    for number, half in enumerate(halves):
        shard = {name: tensors[name].to(torch.bfloat16) for name in half}
        save_file(shard, runs[0] / f"part-{number}.safetensors")
    index = {name: f"part-{number}.safetensors" for number, h in enumerate(halves) for name in h}
    (runs[0] / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    average(runs[:2], Shares([1, 1], [1, 1]), tmp_path / "mean", quiet)
    ours, theirs = (load_file(tmp_path / "mean" / f"part-{i}.safetensors") for i in range(2))
    other = load_file(runs[1] / WEIGHTS)
    for name, value in (ours | theirs).items():
        assert value.dtype == torch.bfloat16
        expected = (tensors[name].to(torch.bfloat16).float() + other[name]) / 2
        torch.testing.assert_close(value, expected.to(torch.bfloat16))
    assert open_checkpoint(tmp_path / "mean").weights.shape("text.norm.weight")


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (Shares([1], [1, 1]), "1 shares of language for 2 checkpoints"),
        (Shares([1, 1], [1, 1, 1]), "3 shares of vision for 2 checkpoints"),
        (Shares([1, 1], [2, -1]), "shares of vision are 2, -1"),
        (Shares([0, 0], [1, 1]), "shares of language are 0, 0"),
        (Shares([float("nan"), 1], [1, 1]), "shares of language are nan, 1"),
    ],
)
def test_shares_that_fit_nothing(
    runs: list[Path], tmp_path: Path, shares: Shares, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        average(runs[:2], shares, tmp_path / "mean", quiet)
    assert not (tmp_path / "mean").exists()


def test_what_is_not_alike_is_not_averaged(
    runs: list[Path], brief_checkpoint: Path, tmp_path: Path
) -> None:
    both = Shares([1, 1], [1, 1])
    with pytest.raises(ExportError, match="differ in their language model"):
        average([runs[0], brief_checkpoint], both, tmp_path / "mean", quiet)
    edit_json(runs[1] / "tokenizer.json", {("version",): "2.0"})
    with pytest.raises(ExportError, match="differ in their tokenizer"):
        average(runs[:2], both, tmp_path / "mean", quiet)
    (runs[1] / "tokenizer.json").unlink()
    with pytest.raises(ExportError, match=r"run1 has no tokenizer\.json"):
        average(runs[:2], both, tmp_path / "mean", quiet)
    with pytest.raises(ExportError, match="nothing to average in one"):
        average(runs[:1], Shares([1], [1]), tmp_path / "mean", quiet)
    weights = load_file(runs[2] / WEIGHTS)
    name = "visual.blocks.0.attn.qkv.weight"
    cut = weights.pop(name)[1:].contiguous()
    save_file(weights | {name: cut}, runs[2] / WEIGHTS)
    with pytest.raises(ExportError, match=f"{name} has other shapes"):
        average([runs[0], runs[2]], both, tmp_path / "mean", quiet)
    save_file(weights, runs[2] / WEIGHTS)
    with pytest.raises(ExportError, match=f"no tensor {name}"):
        average([runs[0], runs[2]], both, tmp_path / "mean", quiet)
    assert {path.name for path in tmp_path.iterdir()} == {"run0", "run1", "run2"}


def test_a_place_that_cannot_be_written(runs: list[Path], tmp_path: Path) -> None:
    both = Shares([1, 1], [1, 1])
    with pytest.raises(OutputError, match="exists; remove it"):
        average(runs[:2], both, tmp_path, quiet)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make .*mean: .*; give another --output"):
        average(runs[:2], both, tmp_path / "file" / "mean", quiet)


def test_the_command(runs: list[Path], tmp_path: Path) -> None:
    said = ["average", *map(str, runs[:2]), "--output", str(tmp_path / "mean")]
    result = CliRunner().invoke(app, [*said, "--language", "0.6,0.4", "--vision", "4,6"])
    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith(str(tmp_path / "mean"))
    by_hand = tmp_path / "by hand"
    average(runs[:2], Shares([0.6, 0.4], [0.4, 0.6]), by_hand, quiet)
    assert (by_hand / WEIGHTS).read_bytes() == (tmp_path / "mean" / WEIGHTS).read_bytes()
    with pytest.raises(ExportError, match="cannot read the shares 'half'"):
        Shares.parse(2, "half", None)
    assert Shares.parse(2, None, "1,3") == Shares([1, 1], [1, 3])
