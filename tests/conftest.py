from __future__ import annotations

import json
from pathlib import Path

import pytest
import skimage.data
import tiny
import torch
from hypothesis import settings
from PIL import Image
from prompted import with_prompts
from serving import as_file
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from export.convert import Conversion, convert
from export.pool.photos import list_photos
from export.pool.shards import write_shard
from export.student.architecture import PRESETS, configure, create
from export.student.tokenizer import special_ids, train_tokenizer
from export.training.checkpoint import write_checkpoint
from export.training.student import Student
from export.training.train import PROMPTS
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.engines import Engine, load_engine
from idetex_edge.prompts import PromptSet

# How long an example takes says nothing on a machine that does other work too.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def quiet(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def to_bundle(
    model: Path,
    output: Path,
    precision: str = "fp32",
    *,
    target: str = "onnx-cpu",
    calibration: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert a checkpoint and prove it over 64 decoded tokens of each answer."""
    wanted = Conversion(
        model,
        output,
        target,
        precision,
        calibration=calibration,
        overwrite=overwrite,
        steps=64,
    )
    convert(wanted, quiet)
    return output


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL with nano's prompts and a tokenizer of every marker; read only."""
    return tiny.ask_briefly(tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("checkpoints") / "tiny"))


@pytest.fixture(scope="session")
def brief_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a context of 1024, for conversions to TensorRT; read only."""
    return tiny.ask_briefly(
        tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("brief") / "brief"), context=1024
    )


@pytest.fixture(scope="session")
def tiny_bundle_path(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint's FP32 bundle for onnx-cpu; read only."""
    return to_bundle(tiny_checkpoint, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundle_path: Path) -> Bundle:
    return open_bundle(tiny_bundle_path)


@pytest.fixture(scope="session")
def tiny_engine(tiny_bundle: Bundle) -> Engine:
    return load_engine("onnx", tiny_bundle, threads=1)


@pytest.fixture(scope="session")
def nano_prompts() -> PromptSet:
    """Nano's prompts."""
    return PromptSet.from_dict(json.loads(PROMPTS.read_text()))


@pytest.fixture(scope="session")
def small_tokenizer(nano_prompts: PromptSet) -> Tokenizer:
    """A small tokenizer with every word of the prompts and levels."""
    texts = [prompt.system + prompt.question for prompt in nano_prompts.prompts.values()]
    levels = " bad poor fair good excellent"
    return train_tokenizer([*texts, levels * 40], words=200)


@pytest.fixture(scope="session")
def random_student(small_tokenizer: Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """Nano's architecture with random weights, and that tokenizer's vocabulary; read only."""
    config = configure(
        PRESETS["nano"], special_ids(small_tokenizer), small_tokenizer.get_vocab_size()
    )
    return create(config).eval()


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs with its table of sources; read only."""
    folder = tmp_path_factory.mktemp("photos")
    names = {
        "clean/a/astronaut.png": (skimage.data.astronaut(), ""),
        "clean/a/chelsea.png": (skimage.data.chelsea(), "0.8"),
        "clean/cid22/coffee.png": (skimage.data.coffee(), ""),
        "scored/b/rocket.png": (skimage.data.rocket()[:256, :256], "0.7"),
        "scored/b/cat.png": (skimage.data.chelsea()[:256, :256], "0.6"),
    }
    lines = ["file\tsource\tlicence\tsize\tmos_0_1"]
    for name, (array, mos) in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        lines.append(f"{name}\t{name.split('/')[1]}\tCC0\t\t{mos}")
    (folder / "SOURCES.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def small_pool(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of one shard of spoiled pictures; read only."""
    folder = tmp_path_factory.mktemp("pools") / "small"
    clean = [photo for photo in list_photos(photo_folder) if not photo.scored]
    write_shard(folder, clean, photo_folder, seed=2, held_out=False)
    return folder


@pytest.fixture(scope="session")
def fresh_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> Path:
    """A checkpoint folder of nano's architecture and fresh weights; read only."""
    folder = tmp_path_factory.mktemp("fresh")
    weights = Student("nano", small_tokenizer).state_dict()
    torch.save({"average": {"weights": weights}}, folder / "model.pt")
    write_checkpoint(
        "nano", small_tokenizer, nano_prompts, folder / "model.pt", folder / "checkpoint"
    )
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def served_bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle under nano's name, with a context of 400; read only."""
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("serve") / "nano", "nano", 400)


@pytest.fixture(scope="session")
def served_photo() -> bytes:
    """A photograph of 600 x 400 px as a PNG file."""
    return as_file(Image.fromarray(skimage.data.coffee()))
