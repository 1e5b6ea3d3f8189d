"""ViDA-UGC's own training files become examples; what a picture says mirrors with it."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from export.distortions.compose import Truth
from export.student.architecture import IMAGE_MEAN, IMAGE_STD
from export.supervision.example import Example
from export.supervision.examples import score_example
from export.supervision.label import label
from export.supervision.labelled import Labelled, mirrored
from export.supervision.vida import read_vida
from export.training.real import RealBatches, as_the_model_sees, placed, scored, size_as_seen
from idetex_edge import Assessor
from idetex_edge.errors import ExportError, OutputError
from idetex_edge.parsing import parse_grounding
from idetex_edge.preprocess import Preprocessor
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES, box_text

_REGION = "What distortion affects this region <|box_start|>(1,2),(300,400)<|box_end|>?"
_GROUNDING = (
    "Noise:\n<|object_ref_start|>Severe noise<|object_ref_end|>"
    "<|box_start|>(10,20),(300,400)<|box_end|>"
)


def _talk(image: str, *turns: str) -> dict[str, object]:
    roles = ("human", "gpt") * len(turns)
    said = [{"from": role, "value": text} for role, text in zip(roles, turns, strict=False)]
    return {"id": image, "image": image, "conversations": said}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.fromarray(skimage.data.chelsea()).save(tmp_path / "images" / "cat.png")
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "images" / "cup.png")
    talks = [
        _talk(
            "train/cat.png",
            "<image>\nPlease provide the bounding box coordinates of all distortions in the image.",
            _GROUNDING,
            _REGION,
            "No distortion",
        ),
        _talk(
            "cat.png",
            "<image>\nWhich is it?\nA. Noise\nB. Motion blur\nAnswer with a single option's "
            "letter (A, B, C, ...) from the given choices directly.",
            "B.",
        ),
        _talk("cat.png", "<image>\nWhat do you think?", "Nice."),
        _talk("cat.png", "<image>\nSay something.", "Nice."),
        _talk("gone.png", f"<image>{_REGION}", "No distortion"),
        _talk(
            "cup.png",
            "<image>\nHow would you rate the quality of the image?",
            "The quality of the image is poor.",
        ),
    ]
    nested = tmp_path / "ViDA-qwen2"
    nested.mkdir()
    (nested / "combined.json").write_text(json.dumps(talks))
    return tmp_path


def test_conversations_become_examples(folder: Path) -> None:
    read = read_vida(folder)
    by_name = {picture.path.name: picture.examples for picture in read.pictures}
    detection, region, choice, question = by_name["cat.png"]
    assert detection == Example("grounding", _GROUNDING)
    assert region.task == "region"
    assert region.fields == {"region": "<|box_start|>(1,2),(300,400)<|box_end|>"}
    assert choice == Example(
        "choice", "B", {"question": "Which is it?", "options": "A. Noise\nB. Motion blur"}
    )
    assert question == Example("question", "Nice.", {"question": "What do you think?"})
    (score,) = by_name["cup.png"]
    assert score.answer == " poor"
    assert score.levels is not None
    assert int(np.argmax(score.levels)) == 1
    assert sorted(read.passed_over.values()) == [1, 1]


def test_metadata_becomes_questions_with_known_answers(folder: Path) -> None:
    record = {
        "image": "cup.png",
        "level": "Fair",
        "distortions": [
            {
                "distortion": "Motion blur",
                "severity": "Severe",
                "coordinates": [0, 0, 500, 1000],
                "significance_score": 80,
            },
            {"distortion": "Watermark", "coordinates": [1, 1, 2, 2]},
        ],
    }
    (folder / "train_metadata.json").write_text(json.dumps([record]))
    read = read_vida(folder)
    (cup,) = [picture for picture in read.pictures if picture.path.name == "cup.png"]
    (detection,) = [e for e in cup.examples if e.task == "grounding"]
    (found,) = parse_grounding(detection.answer)
    assert (found.type, found.severity) == ("Motion blur", "severe")
    assert found.box_1000 == (0, 0, 500, 1000)
    assert {"score", "choice", "region"} <= {e.task for e in cup.examples}
    assert "description" not in {e.task for e in cup.examples}
    assert cup.truths is None
    (cat,) = [picture for picture in read.pictures if picture.path.name == "cat.png"]
    assert cat.truths is None


@pytest.mark.parametrize(
    ("distortions", "kept"),
    [
        ([], True),
        ([{"distortion": "Noise", "severity": "Minor", "coordinates": [0, 0, 500, 200]}], True),
        ([{"distortion": "Noise", "severity": "minor"}], False),
        ([{"distortion": "Noise", "severity": "minor", "coordinates": [10, 10, 0, 0]}], False),
        ([{"distortion": "Watermark", "coordinates": [0, 0, 10, 10]}], False),
    ],
)
def test_boxes_are_a_pictures_truth_where_they_are_all_of_it(
    folder: Path, distortions: list[dict[str, object]], kept: bool
) -> None:
    record = {"image": "cup.png", "level": "good", "distortions": distortions}
    (folder / "train_metadata.json").write_text(json.dumps([record]))
    (cup,) = [picture for picture in read_vida(folder).pictures if picture.path.name == "cup.png"]
    noise = Truth("Noise", "minor", (0, 0, 500, 200), 0.1, "as found")
    assert cup.truths == ((noise,) * len(distortions) if kept else None)
    assert "score" in {e.task for e in cup.examples}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train_metadata.json", "{", "cannot read"),
        ("train_metadata.json", "{}", "not a list"),
        ("train_metadata.json", "[{}]", "names no picture"),
        ("train_metadata.json", '[{"image": "cup.png"}]', "cannot use a record"),
        ("train_metadata.json", '[{"image": "a", "level": "so-so", "distortions": []}]', "so-so"),
        ("combined.json", '[{"image": "a", "conversations": [{}]}]', "conversation"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, file: str, content: str, message: str
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ExportError, match=message):
        read_vida(tmp_path)


def test_folders_without_files_or_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="neither"):
        read_vida(tmp_path)
    (tmp_path / "train_metadata.json").write_text('[{"image": "a.png", "distortions": []}]')
    with pytest.raises(ExportError, match="none of the pictures"):
        read_vida(tmp_path)


@given(st.tuples(*([st.integers(0, 1000)] * 4)))
def test_boxes_move_with_the_picture(edges: tuple[int, int, int, int]) -> None:
    x1, x2 = sorted(edges[:2])
    y1, y2 = sorted(edges[2:])
    text = f"the left side {box_text((x1, y1, x2, y2))}"
    example = Example("region", text, {"region": text})
    (once,) = mirrored([example])
    assert once.answer == f"the right side {box_text((1000 - x2, y1, 1000 - x1, y2))}"
    assert mirrored([once]) == [example]


def test_of_pictures_with_a_score_that_alone_is_asked(folder: Path) -> None:
    path, region, score = folder / "images" / "cat.png", Example("region", "left"), score_example(2)
    pictures = [Labelled(path, (region, score)), Labelled(path, (region,))]
    assert scored(pictures) == [Labelled(path, (score,))]


def test_batches_show_pictures_as_the_model_sees_them(folder: Path) -> None:
    path = folder / "images" / "cat.png"
    picture = Labelled(path, tuple(Example("region", f"left {n}") for n in range(5)))
    batches = RealBatches([picture] * 3, 2 * 448 * 308, "a", questions=6)
    assert batches
    assert not RealBatches([], 1_000_000, "a")
    processor = Preprocessor(14, 2, 2, 4 * 28 * 28, 640 * 28 * 28, IMAGE_MEAN, IMAGE_STD)
    with Image.open(path) as opened:
        theirs = processor.patchify(opened.convert("RGB"))
    assert size_as_seen(451, 300) == (theirs.grid[1] * 14, theirs.grid[0] * 14)
    sides: set[str] = set()
    for number in range(6):
        drawn = batches.draw(number)
        assert drawn.pixels.mean() == pytest.approx(float(theirs.patches.mean()), abs=1e-3)
        assert [len(examples) for examples in drawn.examples] == [3, 3]
        sides |= {e.answer.split()[0] for examples in drawn.examples for e in examples}
    assert sides == {"left", "right"}
    small = RealBatches([picture], 1, "a")
    assert small.draw(0).pixels.shape == (1, 3, 308, 448)
    many = RealBatches([picture] * 4, 1_000_000, "a", questions=3).draw(0)
    assert [len(examples) for examples in many.examples] == [1, 1, 1, 1]


def test_a_score_is_known_whatever_is_asked(folder: Path) -> None:
    path = folder / "images" / "cat.png"
    examples = (score_example(2.0), *(Example("region", f"left {n}") for n in range(30)))
    batches = RealBatches([Labelled(path, examples)], 1, "a", questions=2)
    for number in range(4):
        assert batches.draw(number).known.scores.tolist() == pytest.approx([2.0], abs=0.1)


def test_pictures_are_mirrored_unless_it_is_left_out(folder: Path) -> None:
    picture = Labelled(folder / "images" / "cat.png", (Example("region", "left"),))
    for mirrors, sides in ((True, {"left", "right"}), (False, {"left"})):
        batches = RealBatches([picture], 1, "a", mirrors)
        assert {batches.draw(n).examples[0][0].answer for n in range(12)} == sides


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_seen_upright(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(skimage.data.chelsea()).save(path, exif=exif)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
    assert Labelled(path, ()).size == upright.size
    seen = as_the_model_sees(path)
    assert seen.shape[:0:-1] == size_as_seen(*upright.size)
    theirs = np.asarray(upright.resize(seen.shape[:0:-1], Image.Resampling.BICUBIC))
    assert np.array_equal(seen.transpose(1, 2, 0), theirs)


def test_boxes_of_a_picture_mirror_with_it(folder: Path) -> None:
    path = folder / "images" / "cat.png"
    left = Truth("Noise", "moderate", (0, 0, 250, 1000), 0.25, "as found")
    pictures = [Labelled(path, (score_example(2.0),), (left,)), Labelled(path, ())]
    flawless = Labelled(path, (), ())
    assert placed([*pictures, flawless]) == [pictures[0], flawless]
    batches = RealBatches(pictures, 1, "a")
    noise = DISTORTIONS.index("Noise") * len(SEVERITIES)
    seen: set[tuple[bool, ...]] = set()
    for number in range(12):
        known = batches.draw(number).known
        assert known.scores.isnan().all() == known.grades.isnan().all()
        cells = known.grades[0].view(11, 16, -1)
        assert cells[..., :noise].nan_to_num().sum() == 0
        minor, moderate, severe = cells[..., noise : noise + 3].unbind(-1)
        assert torch.equal(minor.nan_to_num(), moderate.nan_to_num())
        assert severe.nan_to_num().sum() == 0
        if not known.scores.isnan():
            assert minor.sum() == 11 * 4
            seen.add(tuple((minor[0] == 1).tolist()))
    sides = [True] * 4 + [False] * 12
    assert seen == {tuple(sides), tuple(reversed(sides))}


def _silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


def test_a_models_answers_become_supervision(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    cat = Image.fromarray(skimage.data.chelsea()).resize((224, 168))
    noisy = np.asarray(cat) + np.random.default_rng(0).normal(0, 60, (168, 224, 3))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(photos / "noisy.png")
    (photos / "broken.png").write_bytes(b"no picture")
    assessor = Assessor(threads=1)
    output = tmp_path / "labels"
    assert label(assessor, [str(photos)], output, _silent) == (1, 1)
    (picture,) = read_vida(output).pictures
    assert picture.path.read_bytes() == (photos / "noisy.png").read_bytes()
    by_task = {example.task: example for example in picture.examples}
    seen = assessor.encode(photos / "noisy.png")
    assert by_task["description"].answer == assessor.describe(seen).text
    found = {(d.type, d.severity, d.box_1000) for d in assessor.ground(seen)}
    told = parse_grounding(by_task["grounding"].answer)
    assert {(d.type, d.severity, d.box_1000) for d in told} == found
    assert by_task["score"].answer == f" {assessor.score(seen).level}"
    with pytest.raises(OutputError, match="exists"):
        label(assessor, [str(photos)], output, _silent)
    with pytest.raises(ExportError, match="could be read"):
        label(assessor, [str(photos / "broken.png")], tmp_path / "none", _silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "photos"]
