from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from PIL import Image
from prompted import with_prompts
from skimage import data

from idetex_edge import Assessor, Distortion
from idetex_edge.vocabulary import LEVELS


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("cli") / "nano", "nano", 400)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three pictures, one of them in a folder below, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    Image.fromarray(data.coffee()).save(folder / "b.jpg")
    Image.fromarray(data.chelsea()).save(folder / "a [bold].PNG")
    Image.fromarray(data.rocket()).save(folder / "more" / "a.webp")
    (folder / "notes.txt").write_text("not a picture")
    return folder


NAMES = ["a [bold].PNG", "b.jpg", "more/a.webp"]


def test_assess_as_json(bundle: Path, photos: Path) -> None:
    ran = run("assess", photos, "--json", bundle=bundle)
    assert (ran.code, ran.err) == (0, "")
    assert [row["path"] for row in ran.rows] == [str(photos / name) for name in NAMES]
    assert "timings" not in ran.rows[0]
    for row, name in zip(ran.rows, NAMES, strict=True):
        expected = Assessor(bundle).assess(photos / name).to_dict()
        del expected["timings"]
        assert row == json.loads(json.dumps(expected))
    assert run("assess", photos, "--json", bundle=bundle).out == ran.out


def test_assess_as_text(bundle: Path, photos: Path) -> None:
    ran = run("assess", photos / "b.jpg", bundle=bundle)
    assessment = Assessor(bundle).assess(photos / "b.jpg")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(str(photos / "b.jpg"))
    for part in (
        "600 x 400",
        f"{assessment.score:.1f} / 100",
        assessment.level,
        *(d.type for d in assessment.distortions),
        f"{assessment.model} on onnx:cpu",
    ):
        assert part in ran.out
    assert max(map(len, ran.out.splitlines()[1:])) <= 80


def test_score(bundle: Path, photos: Path) -> None:
    ran = run("score", photos / "b.jpg", photos / NAMES[0], bundle=bundle)
    assert ran.code == 0
    lines = [line.split(maxsplit=2) for line in ran.out.splitlines()]
    assert [line[2] for line in lines] == [str(photos / "b.jpg"), str(photos / NAMES[0])]
    score = Assessor(bundle).score(photos / "b.jpg")
    assert lines[0][:2] == [f"{score.score:.1f}", score.level]
    (row,) = run("score", photos / "b.jpg", "--json", bundle=bundle).rows
    assert row == {"path": str(photos / "b.jpg")} | score.to_dict()
    assert list(row["level_probabilities"]) == list(LEVELS)


def everything(assessor: Assessor, path: Path) -> list[Distortion]:
    return assessor.ground(path)


def in_a_region(assessor: Assessor, path: Path) -> list[Distortion]:
    return assessor.ground(path, (10, 20, 300, 200))


def motion_blur(assessor: Assessor, path: Path) -> list[Distortion]:
    return assessor.locate(path, "motion blur")


@pytest.mark.parametrize(
    ("options", "find"),
    [
        ([], everything),
        (["--region", "10,20,300, 200"], in_a_region),
        (["--type", "Motion blur"], motion_blur),
    ],
)
def test_ground(
    bundle: Path,
    photos: Path,
    options: list[str],
    find: Callable[[Assessor, Path], list[Distortion]],
) -> None:
    path = photos / "b.jpg"
    expected = [d.to_dict() for d in find(Assessor(bundle), path)]
    (row,) = run("ground", path, *options, "--json", bundle=bundle).rows
    assert row == {"path": str(path), "distortions": json.loads(json.dumps(expected))}
    ran = run("ground", path, *options, bundle=bundle)
    assert ran.code == 0
    for found in expected:
        assert found["type"] in ran.out
        assert "{}, {} to {}, {}".format(*found["box"]) in ran.out
    assert bool(expected) != ("No distortion found" in ran.out)


def test_ask(bundle: Path, photos: Path) -> None:
    path = photos / "b.jpg"
    options = ["-q", "Which?", "-c", "Noise", "--choice", "Motion blur"]
    expected = Assessor(bundle).ask(path, "Which?", ["Noise", "Motion blur"])
    (row,) = run("ask", path, *options, "--json", bundle=bundle).rows
    assert row == {"path": str(path)} | expected.to_dict()
    ran = run("ask", path, *options, bundle=bundle)
    assert ran.code == 0
    (chosen,) = [line for line in ran.out.splitlines() if "→" in line]
    assert expected.choice in chosen
    assert f"{max(expected.probabilities):.0%}" in chosen


def test_ask_without_choices(bundle: Path, photos: Path) -> None:
    path = photos / "b.jpg"
    expected = Assessor(bundle).answer(path, "Which?")
    (row,) = run("ask", path, "-q", "Which?", "--json", bundle=bundle).rows
    assert row == {"path": str(path), "answer": expected}
    ran = run("ask", path, "-q", "Which?", bundle=bundle)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(str(path))
    assert "<|" not in ran.out


def test_describe(bundle: Path, photos: Path) -> None:
    path = photos / "b.jpg"
    (row,) = run("describe", path, "--json", bundle=bundle).rows
    expected = Assessor(bundle).describe(path)
    assert row == json.loads(json.dumps({"path": str(path)} | expected.to_dict()))
    (row,) = run("describe", path, "--type", "Noise", "--json", bundle=bundle).rows
    assert row["text"] == Assessor(bundle).describe(path, "noise").text
    ran = run("describe", path, bundle=bundle)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(str(path))
    assert "<|" not in ran.out
    assert ran.out.endswith("\n\n")
    assert len(ran.out) > 100


def test_info(bundle: Path) -> None:
    ran = run("info", bundle=bundle)
    assert ran.code == 0
    for part in ("qwen2_5_vl", "onnx-cpu", "fp32", "onnx:cpu", "decoder.onnx.data"):
        assert part in ran.out
    (row,) = run("info", "--json", bundle=bundle).rows
    assert row["bytes"] == sum(row["files"].values())
    assert row["engine"] == "onnx:cpu"
    assert set(row["files"]) == {path.name for path in bundle.iterdir()} - {"manifest.json"}


def test_overlay_of_one_picture(bundle: Path, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "overlay.png"
    ran = run("assess", photos / "b.jpg", "--overlay", target, "--json", bundle=bundle)
    assert ran.rows[0]["overlay"] == str(target)
    with Image.open(target) as overlay:
        assert overlay.width == 600
        assert overlay.height > 400
    ran = run("assess", photos / "b.jpg", "--overlay", tmp_path, bundle=bundle)
    assert (tmp_path / "b.png").read_bytes() == target.read_bytes()
    assert "overlay in" in ran.out


def test_overlays_of_several_pictures(bundle: Path, photos: Path, tmp_path: Path) -> None:
    Image.fromarray(data.coffee()).save(tmp_path / "b.png")
    target = tmp_path / "new" / "overlays"
    given = (photos, tmp_path / "b.png", photos / "b.jpg")
    ran = run("assess", *given, "--overlay", target, "--json", bundle=bundle)
    assert ran.code == 0
    # The last is the second once more.
    names = ["a [bold].png", "b.png", "more/a.png", "b-2.png", "b.png"]
    assert [row["overlay"] for row in ran.rows] == [str(target / name) for name in names]
    assert all((target / name).is_file() for name in names)


def test_a_failure_does_not_stop_the_others(bundle: Path, photos: Path) -> None:
    given = (photos / "b.jpg", photos / "notes.txt", photos / "more")
    ran = run("score", *given, "--json", bundle=bundle)
    assert ran.code == 1
    good, bad, last = ran.rows
    assert set(bad) == {"path", "error"}
    assert bad["path"] == str(photos / "notes.txt")
    assert ran.error == bad["error"]
    assert "score" in good
    assert "score" in last
    ran = run("score", *given, bundle=bundle)
    assert len(ran.out.splitlines()) == 2
    assert "notes.txt" in ran.error


def test_patterns(bundle: Path, photos: Path) -> None:
    def found(pattern: str) -> list[str]:
        ran = run("score", pattern, "--json", bundle=bundle)
        return [Path(row["path"]).relative_to(photos).as_posix() for row in ran.rows]

    assert found(f"{photos}/*.jpg") == ["b.jpg"]
    assert found(f"{photos}/**/*.[wP]*") == ["a [bold].PNG", "more/a.webp"]
    # A file of that name goes before what the pattern would match.
    assert found(f"{photos}/a [bold].PNG") == ["a [bold].PNG"]
    ran = run("score", f"{photos}/*.bmp", bundle=bundle)
    assert ran.code == 1
    assert "*.bmp" in ran.error


def test_folders_without_pictures(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".hidden.jpg").write_text("")
    ran = run("score", tmp_path, "--json", bundle=bundle)
    assert ran.code == 1
    assert "no picture" in ran.error
    assert ran.rows == [{"path": str(tmp_path), "error": ran.error}]


def test_names_no_terminal_should_see(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "red\x1b[31m\n.png"
    Image.fromarray(data.coffee()).save(path)
    for command in ("assess", "score", "ground", "describe"):
        ran = run(command, path, bundle=bundle)
        assert ran.code == 0
        assert "\x1b" not in ran.out
        assert "red\\x1b[31m\\n.png" in ran.out.replace("\n", "") or "\\x1b" in ran.out
    (row,) = run("score", path, "--json", bundle=bundle).rows
    assert row["path"] == str(path)


def test_help_speaks_of_every_command() -> None:
    ran = run("--help")
    assert ran.code == 0
    for command in ("assess", "score", "ground", "ask", "describe", "info", "demo"):
        assert command in ran.out
        assert run(command, "--help").code == 0
