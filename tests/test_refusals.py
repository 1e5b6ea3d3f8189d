"""What `python -m export convert` says of bad input: one line, at once, and nothing left behind."""

from __future__ import annotations

import re
import resource
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import to_bundle
from PIL import Image

from export.__main__ import main
from idetex_edge.errors import ExportError


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run the command; its one line of error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["convert", *map(str, arguments)])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is looked up is a failure: what is not here is told without asking anybody."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (60, 60), (index, 0, 0)).save(folder / f"{index}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def existing(folder: Path) -> Path:
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    return folder


WRONG: list[tuple[Callable[[Path], list[str | Path]], str]] = [
    (lambda at: ["--adapter", at / "nowhere"], "is not an adapter: it has no adapter_config"),
    (lambda at: ["--bench", at / "nowhere"], "is no benchmark"),
    (lambda at: ["--kernels", at / "nowhere"], "holds no kernels"),
    (lambda at: ["--ranges", at / "nowhere"], "cannot read calibration"),
    (lambda at: ["--drafts", at / "nowhere"], "is not a folder; give one of photographs"),
    (lambda at: ["--drafts", pictures(at / "p")], r"3 readable pictures \(1 are broken\)"),
    (lambda at: ["--calibration", pictures(at / "p")], r"3 readable pictures \(1 are broken\)"),
    (lambda at: ["--output", existing(at / "x")], "x exists; it is not a bundle, so give"),
    (lambda at: ["--output", existing(at / "x"), "--overwrite"], "it is not a bundle, so give"),
    (lambda at: ["--target", "tensorrt-11", "--precision", "int8"], "pass --calibration"),
    (lambda _: ["--target", "onnx-cpu", "--precision", "fp16"], "has no precision 'fp16'"),
]


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(("options", "says"), WRONG)
def test_options_that_lead_nowhere_are_told_at_once(
    options: Callable[[Path], list[str | Path]],
    says: str,
    brief_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begin(*_: object) -> None:
        raise AssertionError("began to work")

    monkeypatch.setattr("export.convert.write_model", begin)
    monkeypatch.setattr("export.convert.Reference", begin)
    given = options(tmp_path)
    output = [] if "--output" in given else ["--output", tmp_path / "out"]
    before = sorted(tmp_path.rglob("*"))
    assert re.search(says, refusal(capsys, "--model", brief_checkpoint, *given, *output))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_index_without_its_map_is_told(
    brief_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(brief_checkpoint, tmp_path / "model"))
    for text in ("{}", '{"weight_map": 3}'):
        (model / "model.safetensors.index.json").write_text(text)
        line = refusal(capsys, "--model", model, "--output", tmp_path / "out")
        assert line.endswith("model.safetensors.index.json has no weight_map; download it again")


def test_a_system_that_really_refuses_bytes(brief_checkpoint: Path, tmp_path: Path) -> None:
    """No file may grow beyond 200 KB, as where a disk fills up while it is written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"cannot make .*out: .*free space") as told:
            to_bundle(brief_checkpoint, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_builder_that_is_not_here_is_told_before_the_work(
    brief_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: object) -> None:
        raise AssertionError("began to work")

    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr("export.convert.Reference", begin)
    with pytest.raises(ExportError, match="pip install"):
        to_bundle(brief_checkpoint, tmp_path / "out", "fp16", target="tensorrt-rtx")
    assert list(tmp_path.iterdir()) == []
