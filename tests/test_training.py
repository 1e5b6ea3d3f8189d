"""Training's fast forwards equal Hugging Face's, its tokenizer keeps its promises, runs resume."""

import json
from itertools import count
from pathlib import Path
from random import Random

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from export.distortions.chance import Chance
from export.distortions.pictures import to_picture
from export.pool.photos import Photo, list_photos
from export.pool.shards import Record, Shard, as_seen, shard_folders, size_to_spoil, write_shard
from export.student.architecture import IMAGE_MEAN, IMAGE_STD, PRESETS, configure, create
from export.student.dct import dct_patch_kernels
from export.student.tokenizer import SPECIAL_TOKENS, special_ids, train_tokenizer, write_tokenizer
from export.supervision.example import Example
from export.supervision.examples import examples_for, score_example
from export.supervision.labelled import Labelled
from export.training import team
from export.training.averaging import Average
from export.training.batched_language import hidden_states
from export.training.batched_vision import encode
from export.training.batches import Batches, normalise
from export.training.checkpoint import write_checkpoint
from export.training.course import Course
from export.training.evidence import (
    GRADES,
    cell_auc,
    evidence_loss,
    grade_targets,
    looks_of,
    told,
)
from export.training.language_stage import LANGUAGE, READING, train_language
from export.training.losses import Losses
from export.training.optimiser import Optimiser
from export.training.packing import Packer
from export.training.student import Outputs, Student
from export.training.teaching import Teacher, lessons
from export.training.train import PROMPTS
from export.training.vision_stage import Witness, train_vision
from idetex_edge.errors import ExportError
from idetex_edge.positions import mrope_positions
from idetex_edge.preprocess import Preprocessor
from idetex_edge.prompts import PromptSet


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return PromptSet.from_dict(json.loads(PROMPTS.read_text()))


@pytest.fixture(scope="module")
def tokenizer(prompts: PromptSet) -> Tokenizer:
    texts = [prompt.system + prompt.question for prompt in prompts.prompts.values()]
    levels = " bad poor fair good excellent"
    return train_tokenizer([*texts, levels * 40], words=200)


@pytest.fixture(scope="module")
def student(tokenizer: Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    config = configure(PRESETS["nano"], special_ids(tokenizer), tokenizer.get_vocab_size())
    return create(config).eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.mark.parametrize(("height", "width"), [(224, 224), (252, 364), (84, 56), (28, 280)])
@torch.no_grad()
def test_batched_vision_equals_transformers(
    student: Qwen2_5_VLForConditionalGeneration, height: int, width: int
) -> None:
    photo = Image.fromarray(skimage.data.astronaut()).resize((width, height))
    pixels = normalise(np.array(photo).transpose(2, 0, 1))
    processor = Preprocessor(14, 2, 2, 28 * 28, 10**6, IMAGE_MEAN, IMAGE_STD)
    patched = processor.patchify(photo)
    grid = torch.tensor([[1, *patched.grid]])
    output = student.model.visual(torch.from_numpy(patched.patches), grid)
    expected = output if isinstance(output, Tensor) else output.pooler_output
    ours = encode(student.model.visual, torch.stack((pixels, pixels.flip(-1))))[0]
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5


@torch.no_grad()
def test_packed_language_equals_transformers(
    student: Qwen2_5_VLForConditionalGeneration, tokenizer: Tokenizer, prompts: PromptSet
) -> None:
    packer = Packer(tokenizer, prompts)
    examples = [
        Example("score", " good", levels=(0, 0, 0, 1, 0)),
        Example("grounding", "No distortion"),
        Example("choice", "B", {"question": "Which?" * 20, "options": "A. x\nB. y"}),
    ]
    packed = packer.pack([examples, examples[1:]], rows=3, columns=4)
    text = student.model.language_model
    embedded = [text.embed_tokens(block.ids) for block in packed.blocks]
    embedded[0][:, packed.image] = torch.randn(2, 12, embedded[0].shape[-1]) * 0.05
    joined = torch.cat([part.flatten(0, 1) for part in embedded])
    hidden, _ = hidden_states(text, joined, packed.blocks)
    at = 0
    compared = 0
    for block, part in zip(packed.blocks, embedded, strict=True):
        rows, length = block.ids.shape
        for row in range(rows if block.picture is not None else 0):
            assert block.picture is not None
            owner = int(block.picture[row])
            ids = torch.cat((packed.blocks[0].ids[owner], block.ids[row]))
            positions, _ = mrope_positions(
                ids.numpy(),
                image_token=packer.id_of("<|image_pad|>"),
                grid=(6, 8),
                merge_size=2,
            )
            expected = text(
                inputs_embeds=torch.cat((embedded[0][owner], part[row]))[None],
                position_ids=torch.from_numpy(positions)[:, None],
            ).last_hidden_state[0, -length:]
            ours = hidden[at + row * length : at + (row + 1) * length]
            assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5
            compared += 1
        at += rows * length
    assert compared == 5


def test_packed_targets_are_the_answers(tokenizer: Tokenizer, prompts: PromptSet) -> None:
    packer = Packer(tokenizer, prompts)
    answer = "Noise:\n<|box_start|>(1,2),(30,400)<|box_end|>"
    packed = packer.pack([[Example("grounding", answer)]], rows=2, columns=2)
    ids = tokenizer.encode(answer, add_special_tokens=False).ids
    expected = [*ids, tokenizer.token_to_id("<|im_end|>")]
    assert packed.targets.tolist() == expected
    inputs = torch.cat([block.ids.flatten() for block in packed.blocks])
    assert inputs[packed.rows[1:]].tolist() == expected[:-1]


def test_every_number_is_one_token_and_files_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for number in range(1001):
        assert len(tokenizer.encode(str(number), add_special_tokens=False).ids) == 1
    write_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Thus (12,345) \u00fc <|box_start|>(0,1000)<|box_end|>\n"
    ids = loaded.encode(text, add_special_tokens=False)
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    assert loaded.decode(ids) == text
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}]
    chat = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert set(SPECIAL_TOKENS) <= set(loaded.get_vocab())


def test_patch_kernels_are_a_basis_of_frequencies() -> None:
    kernels = dct_patch_kernels(192, 14)
    assert kernels.shape == (192, 3, 14, 14)
    assert torch.linalg.matrix_rank(kernels.flatten(1)) == 192
    grey = torch.full((3, 14, 14), 0.3)
    response = (kernels * grey).sum((1, 2, 3)).abs()
    assert int((response > 1e-4).sum()) == 1


def test_auc_against_pair_counting() -> None:
    generator = torch.Generator().manual_seed(1)
    scores, truth = torch.rand(80, generator=generator), torch.rand(80, generator=generator) < 0.3
    wins = (scores[truth][:, None] > scores[~truth][None]).double().mean()
    assert cell_auc(scores, truth) == pytest.approx(float(wins))


def test_average_follows_the_weights() -> None:
    module = torch.nn.Linear(2, 2)
    average = Average(module, decay=0.5)
    with torch.no_grad():
        module.weight.fill_(3.0)
    for _ in range(60):
        average.update(module)
    assert torch.allclose(average.weights["weight"], module.weight, atol=1e-3)


def test_pictures_are_spoiled_at_other_sizes_than_they_are_seen(photos: Path) -> None:
    sizes = [size_to_spoil(224, 336, Chance(seed)) for seed in range(200)]
    assert 0.2 < np.mean([size == (224, 336) for size in sizes]) < 0.4
    assert 0.25 < np.mean([height > 240 for height, _ in sizes]) < 0.45
    image = torch.rand(3, 250, 340)
    seen = as_seen(image, 224, 336)
    processor = Preprocessor(14, 2, 2, 28 * 28, 10**6, IMAGE_MEAN, IMAGE_STD)
    theirs = processor.patchify(to_picture(image))
    assert seen.shape == (3, 224, 336)
    assert theirs.grid == (18, 24)
    assert as_seen(image, 252, 336).mean() == pytest.approx(
        255 * (theirs.patches.mean() + 1) / 2, abs=0.01
    )


def test_too_small_photographs_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (100, 300)).save(tmp_path / "small.png")
    photo = Photo(tmp_path / "small.png", "x", None, scored=False, held_out=False)
    with pytest.raises(ExportError, match=r"no photograph in .* holds"):
        write_shard(tmp_path / "pool", [photo], tmp_path, seed=1, held_out=False)


def test_shards_and_records_survive_the_disk(photos: Path, tmp_path: Path) -> None:
    listed = list_photos(photos)
    assert {p.path.name for p in listed if p.held_out and not p.scored} == {"coffee.png"}
    clean = [p for p in listed if not p.scored]
    pool = tmp_path / "pool"
    folder = write_shard(pool, clean, photos, seed=5, held_out=False)
    again = write_shard(tmp_path / "again", clean, photos, seed=5, held_out=False)
    shard, copy = Shard.open(folder), Shard.open(again)
    assert np.array_equal(shard.images, copy.images)
    assert shard.records == copy.records
    assert shard_folders(pool) == [folder]
    record = shard.records[0]
    assert Record.from_json(record.to_json()) == record
    batch = next(iter(Batches(pool, 300_000, seed=1)))
    assert batch.pixels.shape[0] == len(batch.records)
    assert float(batch.pixels.min()) >= -1
    assert float(batch.pixels.max()) <= 1
    kinds = {e.task for e in examples_for(batch.records[0], (True, False), Random(0))}
    assert {"score", "grounding", "region", "locate"} <= kinds


def test_stages_run_resume_and_make_a_loadable_checkpoint(
    photos: Path, tmp_path: Path, tokenizer: Tokenizer, prompts: PromptSet
) -> None:
    listed = list_photos(photos)
    pool = tmp_path / "pool"
    for seed in (2, 3):
        write_shard(pool, [p for p in listed if not p.scored], photos, seed, held_out=False)
    run = tmp_path / "run"
    moment = 1e-4
    train_vision("nano", pool, {}, run, moment)
    real = [Labelled(p.path, (score_example(4.0),)) for p in listed if p.scored] * 2
    for stage in (READING, LANGUAGE):
        for _ in range(2):
            train_language(stage, "nano", tokenizer, prompts, pool, real, {}, run, moment)
        written = (run / f"{stage.name}.jsonl").read_text()
        lines = [json.loads(line) for line in written.splitlines()]
        assert lines[-1]["step"] == len(lines) == 2
    output = tmp_path / "checkpoint"
    write_checkpoint("nano", tokenizer, prompts, run / "model.pt", output)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(output)
    saved = torch.load(run / "model.pt", weights_only=True)["average"]["weights"]
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(dict(model.named_parameters())[name], saved[f"model.{name}"])
    assert PromptSet.from_dict(json.loads((output / "prompts.json").read_text())) == prompts
    taught = tmp_path / "taught"
    taught.mkdir()
    for file in ("vision.pt", "reading.pt"):
        (taught / file).write_bytes((run / file).read_bytes())
    train_language(
        LANGUAGE, "nano", tokenizer, prompts, pool, real, {}, taught, moment, taught_by=output
    )
    write_checkpoint("nano", tokenizer, prompts, taught / "model.pt", tmp_path / "pupil")
    (line,) = (taught / "model.jsonl").read_text().splitlines()
    assert {"logits", "features"} <= set(json.loads(line))
    further = tmp_path / "further"
    further.mkdir()
    train_vision("nano", pool, {}, further, moment, start=output)
    train_language(
        READING, "nano", tokenizer, prompts, pool, real, {}, further, moment, start=output
    )
    moved = torch.load(further / "reading.pt", weights_only=True)["model"][f"model.{name}"]
    assert torch.allclose(moved, saved[f"model.{name}"], atol=1e-3)
    tower = torch.load(further / "vision.pt", weights_only=True)["model"]
    name = "blocks.0.attn.qkv.weight"
    assert torch.allclose(tower[f"tower.{name}"], saved[f"model.model.visual.{name}"], atol=1e-3)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    photos: Path,
    tmp_path: Path,
    tokenizer: Tokenizer,
    prompts: PromptSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = tmp_path / "pool"
    clean = [p for p in list_photos(photos) if not p.scored]
    write_shard(pool, clean, photos, seed=2, held_out=False)
    seconds = count()
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    weights: list[dict[str, Tensor]] = []
    for stops in ((4,), (2, 4)):
        run = tmp_path / str(len(stops))
        for steps in stops:
            monkeypatch.setattr(Course, "done", property(lambda c, n=steps: c.step >= n))
            train_language(READING, "nano", tokenizer, prompts, pool, [], {}, run, minutes=1)
        saved = torch.load(run / "reading.pt", weights_only=True)
        assert (saved["step"], saved["seconds"]) == (4, 4.0)
        weights.append(saved["model"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@torch.no_grad()
def test_a_folded_tower_says_what_the_language_model_reads(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    witness, student = Witness("nano"), Student("nano", tokenizer)
    torch.save({"average": {"weights": witness.state_dict()}}, tmp_path / "vision.pt")
    student.take_tower(tmp_path / "vision.pt")
    pixels = normalise(skimage.data.chelsea()[None, :224, :336].transpose(0, 3, 1, 2).copy())
    sight = student.see(pixels)
    assert torch.allclose(sight.evidence, witness(pixels), atol=1e-5)
    assert torch.allclose(sight.features, student.testify(sight.evidence), atol=1e-5)
    torch.nn.init.normal_(student.bypass.weight, std=0.02)
    features = student.see(pixels).features
    student.fold()
    folded = encode(student.model.model.visual, pixels)
    assert torch.allclose(folded, features, atol=1e-5)


def test_a_student_nears_its_teacher(
    photos: Path, tmp_path: Path, tokenizer: Tokenizer, prompts: PromptSet
) -> None:
    """Only the teacher's share of the loss is followed here; both parts of it must fall."""
    torch.manual_seed(1)
    taught_by = tmp_path / "teacher"
    student = Student("nano", tokenizer)
    torch.save({"average": {"weights": student.state_dict()}}, tmp_path / "model.pt")
    write_checkpoint("nano", tokenizer, prompts, tmp_path / "model.pt", taught_by)
    teacher = Teacher(taught_by, tokenizer)
    pool = tmp_path / "pool"
    clean = [p for p in list_photos(photos) if not p.scored]
    write_shard(pool, clean, photos, seed=2, held_out=False)
    batch = next(iter(Batches(pool, 100_000, seed=1)))
    height, width = batch.pixels.shape[-2:]
    examples = [[Example("grounding", "No distortion"), score_example(2.0)]] * len(batch.records)
    packed = Packer(tokenizer, prompts).pack(examples, height // 28, width // 28)
    taught = teacher(batch.pixels, packed)
    learner = Student("nano", tokenizer, teacher.width)
    torch.nn.init.normal_(learner.model.lm_head.weight, std=0.05)
    optimiser = torch.optim.Adam(learner.parameters(), lr=1e-3)
    history: list[dict[str, float]] = []
    sight = learner.see(batch.pixels)
    for _ in range(12):
        parts = lessons(learner, sight, learner(sight.features, packed), taught, packed)
        history.append({name: float(part.detach()) for name, part in parts.items()})
        optimiser.zero_grad()
        sum(parts.values(), torch.zeros(())).backward()
        optimiser.step()
        sight = learner.see(batch.pixels)
    assert all(history[-1][name] < 0.7 * history[0][name] for name in ("logits", "features"))
    same = lessons(
        learner, sight, Outputs(taught.answers, taught.levels, packed.weights), taught, packed
    )
    assert float(same["logits"]) == pytest.approx(0.0, abs=1e-5)


def test_a_teacher_of_another_vocabulary_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, prompts: PromptSet
) -> None:
    with pytest.raises(ExportError, match="no tokenizer"):
        Teacher(tmp_path, tokenizer)
    other = train_tokenizer(["entirely other words"], words=20)
    write_tokenizer(other, tmp_path)
    with pytest.raises(ExportError, match=r"another vocabulary.*label"):
        Teacher(tmp_path, tokenizer)


def test_testimony_is_the_truth_with_errors(photos: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    clean = [p for p in list_photos(photos) if not p.scored]
    write_shard(pool, clean, photos, seed=2, held_out=False)
    batch = next(iter(Batches(pool, 1_000_000, seed=1)))
    targets, looks = grade_targets(batch.coverage, batch.severity), looks_of(batch.pixels)
    heard = told(targets, looks, torch.Generator().manual_seed(3))
    again = told(targets, looks, torch.Generator().manual_seed(3))
    assert torch.equal(heard, again)
    scores, truth = heard[..., :GRADES].flatten(), targets.flatten() > 0.5
    assert 0.95 < cell_auc(scores, truth) < 1.0
    exact = torch.cat((torch.logit(targets, eps=1e-4), looks), dim=-1)
    assert evidence_loss(exact, targets, looks) < evidence_loss(heard, targets, looks)


def test_looks_are_the_means_of_cells() -> None:
    pixels = torch.zeros(1, 3, 56, 28)
    pixels[0, :, 28:] = 0.5
    looks = looks_of(pixels)
    assert looks.shape == (1, 2, 4)
    assert looks[0, :, 0].tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert looks[0, :, 1:3].abs().max() < 1e-4


def test_matrices_go_to_muon_and_all_else_to_adam(tokenizer: Tokenizer) -> None:
    student = Student("nano", tokenizer)
    text = student.model.model.language_model
    before = {name: value.clone() for name, value in text.state_dict().items()}
    optimiser = Optimiser({"text": (text, 0.5)})
    for parameter in text.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step(1e-3)
    after = text.state_dict()
    assert all(parameter.grad is None for parameter in text.parameters())
    moved = after["embed_tokens.weight"] - before["embed_tokens.weight"]
    assert torch.allclose(moved.abs(), torch.full_like(moved, 5e-4), rtol=0.05, atol=1e-6)
    name = "layers.0.mlp.up_proj.weight"
    change = after[name] - before[name]
    singular = torch.linalg.svdvals(change)
    assert singular.max() / singular.min() < 3


def test_answer_loss_is_cross_entropy_with_bells_on_numbers(
    tokenizer: Tokenizer, prompts: PromptSet
) -> None:
    packer = Packer(tokenizer, prompts)
    packed = packer.pack([[Example("choice", "B", {"question": "x", "options": "y"})]], 2, 2)
    vocabulary = tokenizer.get_vocab_size()
    logits = torch.randn(len(packed.targets), vocabulary)
    loss = Losses(packer, vocabulary).answers(logits, packed)
    assert loss == pytest.approx(float(cross_entropy(logits, packed.targets)), rel=1e-5)
    assert packed.option_right.tolist() == [0.0]
    packed = packer.pack([[Example("grounding", "500")]], 2, 2)
    assert float(Losses(packer, vocabulary).options(torch.empty(0), packed)) == 0.0
    sharp = torch.zeros(len(packed.targets), vocabulary)
    sharp[1, packed.targets[1]] = 50.0
    losses: list[float] = []
    for guess in (500, 506, 600):
        sharp[0] = 0.0
        sharp[0, packer.number_ids[guess]] = 4.0
        losses.append(float(Losses(packer, vocabulary).answers(sharp, packed)))
    assert losses[0] < losses[1] < losses[2]


def _average_in_team(folder: Path) -> None:
    module = torch.nn.Linear(2, 1)
    number = float(team.rank() + 1)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, number)
    seconds = team.average_gradients(module, 10 * number)
    means = {float(value) for p in module.parameters() for value in p.grad.flatten()}  # type: ignore[union-attr]
    (folder / str(team.rank())).write_text(json.dumps([sorted(means), seconds]))


def test_a_team_averages_its_gradients_and_clocks(tmp_path: Path) -> None:
    team.train_together(2, _average_in_team, tmp_path)
    for member in range(2):
        assert json.loads((tmp_path / str(member)).read_text()) == [[1.5], 15.0]
    assert team.average_gradients(torch.nn.Linear(1, 1), 3.0) == 3.0
