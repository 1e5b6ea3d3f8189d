"""The command as a process of its own: what only shows there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from prompted import with_prompts
from skimage import data

COMMAND = [sys.executable, "-m", "idetex_edge"]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of Unix")


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("cli") / "nano", "nano", 400)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "coffee.jpg"
    Image.fromarray(data.coffee()).save(path)
    return path


def test_results_go_to_stdout_and_errors_to_stderr(
    bundle: Path, photo: Path, tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay.png"
    call = [*COMMAND, "assess", photo, "--json", "--bundle", bundle, "--overlay", overlay]
    ran = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["overlay"] == str(overlay)
    call = [*COMMAND, "score", photo, "gone.png", "--json", "--bundle", bundle]
    ran = subprocess.run(call, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    good, bad = (json.loads(line) for line in ran.stdout.splitlines())
    assert "score" in good
    assert ran.stderr == f"error: {bad['error']}\n"


def test_an_encoding_that_cannot_hold_the_output(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "fotó \udcff.png"
    Image.fromarray(data.coffee()).save(path)
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for command in ("assess", "score", "ask"):
        call = [*COMMAND, command, path, "--bundle", bundle]
        call += ["-q", "Wó?", "-c", "ó", "-c", "é"] if command == "ask" else []
        for extra in ([], ["--json"]):
            ran = subprocess.run([*call, *extra], capture_output=True, env=environment, check=False)
            assert (ran.returncode, ran.stderr) == (0, b"")
            assert ran.stdout


@posix
def test_a_closed_pipe_is_quiet(bundle: Path, photo: Path) -> None:
    for extra in ([], ["--json"]):
        call = [*COMMAND, "score", *[photo] * 50, "--bundle", bundle, *extra]
        process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's full device")
def test_a_full_disk_is_said_in_one_line(bundle: Path, photo: Path) -> None:
    for extra in ([], ["--json"]):
        call = [*COMMAND, "score", photo, "--bundle", bundle, *extra]
        with Path("/dev/full").open("wb") as full:
            ran = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, check=False)
        assert ran.returncode == 1
        assert ran.stderr == b"error: cannot write the results: No space left on device\n"


@posix
def test_an_interrupt_is_quiet(bundle: Path, photo: Path) -> None:
    call = [*COMMAND, "score", *[photo] * 2000, "--json", "--bundle", bundle]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert all(json.loads(line) for line in out.splitlines())


@posix
def test_progress_is_shown_to_people_only(bundle: Path, photo: Path) -> None:
    ours, theirs = os.openpty()
    call = [*COMMAND, "score", photo, photo, "--json", "--bundle", bundle]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    with os.fdopen(theirs, "wb") as terminal:
        ran = subprocess.run(
            call, stdout=subprocess.PIPE, stderr=terminal, env=environment, check=True
        )
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "coffee.jpg" in shown
    assert "0/2" in shown
    assert len([json.loads(line) for line in ran.stdout.splitlines()]) == 2


def test_importing_is_quick_and_light() -> None:
    script = (
        "import sys, time; start = time.perf_counter(); import idetex_edge; "
        "print(time.perf_counter() - start); "
        "print(*{'torch', 'transformers', 'onnxruntime', 'skimage', 'typer'} & set(sys.modules))"
    )
    # The best of three: the machine may be busy.
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert min(float(ran.stdout.splitlines()[0]) for ran in runs) < 1
    assert runs[0].stdout.splitlines()[1] == ""


def test_scoring_loads_neither_torch_nor_transformers(bundle: Path, photo: Path) -> None:
    script = (
        "import sys; from idetex_edge import Assessor; "
        f"Assessor({str(bundle)!r}).assess({str(photo)!r}); "
        "print(*{'torch', 'transformers', 'export'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"
