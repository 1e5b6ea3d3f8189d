"""A picture that was encoded, kept in a file, and taken up again."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edit_json import edit_json
from prompted import with_prompts
from skimage import data

from idetex_edge import Assessor, EncodedImage, OutputError, RequestError
from idetex_edge.engines import Engine
from idetex_edge.engines.protocol import KeepingEngine

COFFEE = data.coffee()
CHOICES = ("Noise", "Motion blur")


@pytest.fixture(scope="module", params=["nano", "vida"])
def bundle(
    request: pytest.FixtureRequest, tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("kept") / request.param
    return with_prompts(tiny_bundle_path, folder, request.param, 3600)


def test_a_kept_picture_answers_as_it_did(bundle: Path, tmp_path: Path) -> None:
    """Also in another Assessor, and though neither its encoder nor its stem runs again."""
    first, second = (Assessor(bundle, threads=1) for _ in range(2))
    seen = first.encode(COFFEE)
    score, answer = first.score(seen), first.ask(seen, "What?", CHOICES)
    seen.save(tmp_path / "seen")
    loaded = EncodedImage.load(tmp_path / "seen")
    assert (loaded.rows, loaded.columns, loaded.path) == (seen.rows, seen.columns, None)
    assert loaded.image == seen.image
    # Features that were seen again would change every answer.
    loaded.features[:] = 0
    assert second.score(loaded) == score
    assert second.ask(loaded, "What?", CHOICES) == answer
    assert loaded.stems.keys() == seen.stems.keys()


def test_a_picture_is_kept_before_it_was_asked_about_and_again_later(
    bundle: Path, tmp_path: Path
) -> None:
    assessor = Assessor(bundle, threads=1)
    expected = assessor.assess(COFFEE)
    assessor.encode(COFFEE).save(tmp_path / "early")
    early = EncodedImage.load(tmp_path / "early")
    early.save(tmp_path / "untouched")
    found = assessor.assess(EncodedImage.load(tmp_path / "untouched"))
    assert found.distortions == expected.distortions
    assert found.description == expected.description
    assessor.score(early)
    early.save(tmp_path / "late")
    assert EncodedImage.load(tmp_path / "late").kept.keys() == early.stems.keys()


def test_another_process_takes_it_up(bundle: Path, tmp_path: Path) -> None:
    assessor = Assessor(bundle, threads=1)
    seen = assessor.encode(COFFEE)
    expected = assessor.score(seen).score
    seen.save(tmp_path / "seen")
    code = (
        "import sys; from idetex_edge import Assessor, EncodedImage;"
        "seen = EncodedImage.load(sys.argv[2]);"
        "print(Assessor(sys.argv[1], threads=1).score(seen).score)"
    )
    call = [sys.executable, "-c", code, str(bundle), str(tmp_path / "seen")]
    ran = subprocess.run(call, capture_output=True, text=True, check=True)
    assert float(ran.stdout) == expected


def test_another_bundle_refuses_it(bundle: Path, tiny_bundle_path: Path, tmp_path: Path) -> None:
    seen = Assessor(bundle, threads=1).encode(COFFEE)
    seen.save(tmp_path / "seen")
    other = with_prompts(tiny_bundle_path, tmp_path / "other", "nano", 3599)
    edit_json(other / "manifest.json", {("name",): "other"})
    with pytest.raises(RequestError, match="another bundle or engine than other"):
        Assessor(other, threads=1).score(EncodedImage.load(tmp_path / "seen"))


@pytest.fixture(scope="module")
def kept(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    assessor = Assessor(bundle, threads=1)
    seen = assessor.encode(COFFEE[:100, :100])
    assessor.score(seen)
    path = tmp_path_factory.mktemp("file") / "seen"
    seen.save(path)
    return path.read_bytes()


def test_damaged_files_are_refused(kept: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    flipped = bytearray(kept)
    flipped[len(kept) // 2] ^= 0xFF
    cases = [b"", b"no zip", kept[: len(kept) // 2], kept[:-1], kept[100:], bytes(flipped)]
    for case in cases:
        path.write_bytes(case)
        with pytest.raises(RequestError, match="encode the picture again"):
            EncodedImage.load(path)
    for wrong in (tmp_path / "gone", tmp_path):
        with pytest.raises(RequestError, match="encode the picture again"):
            EncodedImage.load(wrong)


def test_other_versions_and_contents_are_refused(kept: bytes, tmp_path: Path) -> None:
    def changed(**facts: object) -> Path:
        with zipfile.ZipFile(io.BytesIO(kept)) as old:
            arrays = {name: old.read(name) for name in old.namelist()}
        text = json.loads(str(np.load(io.BytesIO(arrays["facts.npy"]))))
        written = io.BytesIO()
        np.save(written, np.array(json.dumps(text | facts)))
        with zipfile.ZipFile(tmp_path / "changed", "w") as new:
            for name, content in (arrays | {"facts.npy": written.getvalue()}).items():
                new.writestr(name, content)
        return tmp_path / "changed"

    assert EncodedImage.load(changed()).rows
    with pytest.raises(RequestError, match="version 99"):
        EncodedImage.load(changed(version=99))
    for facts in ({"stems": [["head", 3], ["more", 3]]}, {"made_by": 3}, {"stems": 3}):
        with pytest.raises(RequestError, match="encode the picture again"):
            EncodedImage.load(changed(**facts))


def test_a_file_appears_whole_or_not_at_all(bundle: Path, tmp_path: Path) -> None:
    seen = Assessor(bundle, threads=1).encode(COFFEE)
    with pytest.raises(OutputError, match="choose another place"):
        seen.save(tmp_path / "no" / "folder")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="choose another place"):
        seen.save(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_engines_take_back_only_their_own(tiny_engine: Engine) -> None:
    assert isinstance(tiny_engine, KeepingEngine)
    sequence = tiny_engine.start(8)
    positions = np.broadcast_to(np.arange(5), (3, 5))
    tiny_engine.extend(sequence, tiny_engine.embed([1, 2, 3, 4, 5]), positions)
    kept = tiny_engine.keep(sequence)
    restored = tiny_engine.restore(kept, sequence.next_position)
    expected, got = (tiny_engine.decode([one], [7]) for one in (sequence, restored))
    np.testing.assert_array_equal(got, expected)
    assert (restored.length, restored.next_position) == (6, 6)
    wrong: list[npt.NDArray[np.floating]] = [
        kept[:1],
        kept[..., :-1],
        kept.astype(np.float16),
        kept[0],
        kept[:, :, :, :0],
    ]
    for array in wrong:
        with pytest.raises(RequestError):
            tiny_engine.restore(array, 5)
    with pytest.raises(RequestError):
        tiny_engine.restore(kept, 0)


def test_an_engine_that_cannot_keep_says_so(bundle: Path, tmp_path: Path) -> None:
    assessor = Assessor(bundle, threads=1)
    seen = assessor.encode(COFFEE)
    assessor.score(seen)
    with pytest.raises(RequestError, match="cannot give its keys and values away"):
        replace(seen, engine=None).save(tmp_path / "seen")
