"""The course of a stage, its optimiser, and teams: budgets, averages, steps in common."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from export.training import team
from export.training.averaging import Average
from export.training.course import Course
from export.training.optimiser import Optimiser
from export.training.student import Student


def test_average_follows_the_weights() -> None:
    module = torch.nn.Linear(2, 2)
    average = Average(module, decay=0.5)
    with torch.no_grad():
        module.weight.fill_(3.0)
    for _ in range(60):
        average.update(module)
    assert torch.allclose(average.weights["weight"], module.weight, atol=1e-3)


@pytest.mark.parametrize(("cost", "checked"), [(1, [5, 10, 15, 20, 25]), (90, [5, 20, 25])])
def test_a_slow_validation_comes_less_often(
    tmp_path: Path, cost: float, checked: list[int]
) -> None:
    """Steps of a minute, 25 minutes, and a validation that takes `cost` seconds."""
    now = 0.0

    def validate(_: object) -> dict[str, object]:
        nonlocal now
        now += cost
        return {}

    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    optimiser = Optimiser({"whole": (torch.nn.ModuleDict({"a": module}), 1.0)})
    course = Course(tmp_path, "stage", 25, module, optimiser, clock=lambda: now)
    course.begin(lambda: None)
    saves: list[int] = []
    while not course.done:
        now += 60
        course.tick()
        course.advance(1, {"loss": 1.0}, validate)
        saves.append(torch.load(tmp_path / "stage.pt")["step"] if course.step > 5 else 0)
    lines = [json.loads(line) for line in (tmp_path / "stage.jsonl").read_text().splitlines()]
    minutes = [round(line["minutes"]) for line in lines if "checks" in line]
    assert minutes == checked
    assert len(set(saves)) >= 5


def test_a_team_stops_at_one_step_though_its_clocks_differ(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    optimiser = Optimiser({"whole": (torch.nn.ModuleDict({"a": module}), 1.0)})
    times = [0.0, 0.0]
    clocks = (lambda: times[0], lambda: times[1])
    members = [
        Course(tmp_path / str(n), "stage", 1, module, optimiser, leads=n == 0, clock=clock)
        for n, clock in enumerate(clocks)
    ]
    for member in members:
        member.begin(lambda: None)
    stops: list[tuple[bool, bool]] = []
    while not any(member.done for member in members):
        times = [times[0] + 9.9, times[1] + 10.3]
        mean = sum(member.tick() for member in members) / 2
        for member in members:
            member.seconds = mean
            member.advance(1, {"loss": 1.0}, lambda _: {})
        stops.append((members[0].done, members[1].done))
    assert stops == [(False, False)] * 5 + [(True, True)]


def test_matrices_go_to_muon_and_all_else_to_adam(small_tokenizer: Tokenizer) -> None:
    student = Student("nano", small_tokenizer)
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


def _average_in_team(folder: Path) -> None:
    module = torch.nn.Linear(2, 1)
    number = float(team.rank() + 1)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, number)
    seconds = team.average_gradients(module, 10 * number)
    means = {float(value) for p in module.parameters() for value in p.grad.flatten()}  # type: ignore[union-attr]
    (folder / str(team.rank())).write_text(json.dumps([sorted(means), seconds]))


def test_a_team_averages_its_gradients_and_clocks(tmp_path: Path) -> None:
    folders = [tmp_path / str(size) for size in (1, 2)]
    for folder in folders:
        folder.mkdir()
    team.train_apart(*(team.Team(int(f.name), _average_in_team, (f,)) for f in folders))
    one, two = ([json.loads(file.read_text()) for file in folder.iterdir()] for folder in folders)
    assert one == [[[1.0], 10.0]]
    assert two == [[[1.5], 15.0]] * 2
    assert team.average_gradients(torch.nn.Linear(1, 1), 3.0) == 3.0
