"""What `deploy/` says is true: sizes, files that images copy, the unit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.deployed_sizes import sizes_table
from idetex_edge.assessor import NANO
from idetex_edge.bundle import open_bundle

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KNOWN = {"FROM", "RUN", "COPY", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, lines that go on joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word, rest.strip())
        for line in joined.splitlines()
        if line.strip()
        for word, _, rest in [line.partition(" ")]
    ]


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.Dockerfile")), ids=lambda p: p.stem)
def test_images_are_made_of_what_is_there(path: Path) -> None:
    found = instructions(path)
    words = [word for word, _ in found]
    assert set(words) <= KNOWN
    assert words[0] == "FROM"
    (base,) = [rest for word, rest in found if word == "FROM"]
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", base), "a base without a tag moves"
    for word, rest in found:
        if word == "COPY":
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources)
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists" in rest
        if word in ("ENTRYPOINT", "CMD"):
            assert rest.startswith("[")
    # Nothing runs as root.
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert f"-f {path.relative_to(ROOT)} " in path.read_text()


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.Dockerfile")), ids=lambda p: p.stem)
def test_hadolint_finds_nothing_in_images(path: Path) -> None:
    beside = Path(sys.executable).parent / "hadolint"
    tool = str(beside) if beside.exists() else shutil.which("hadolint")
    if tool is None:
        pytest.skip("hadolint is not installed")
    command = [tool, "--config", str(DEPLOY / "hadolint.yaml"), "--no-color", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_every_source_of_wheels_is_linked() -> None:
    text = (DEPLOY / "README.md").read_text()
    names = set(re.findall(r"\]\[(\w+)\]", text))
    assert names == set(re.findall(r"^\[(\w+)\]: https://", text, re.MULTILINE)) != set()


def test_the_table_of_sizes_is_the_exporters() -> None:
    assert sizes_table(4096) in (DEPLOY / "README.md").read_text()


def test_nanos_size_is_that_of_its_bundle() -> None:
    files = open_bundle(NANO).manifest.files
    weights = sum(f.bytes for name, f in files.items() if name.endswith((".data", ".bin")))
    nano = sizes_table(4096).splitlines()[2]
    assert f"| nano | {weights / 1e9:.2f} / " in nano


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "idetex-edge.service").read_text()
    here = tmp_path / "idetex-edge.service"
    here.write_text(unit.replace("/opt/idetex/bin/idetex-edge", "/bin/true"))
    ran = subprocess.run(
        ["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
