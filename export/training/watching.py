"""Watching a run from outside its processes: bars while it trains, and a plot of its logs."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PLOT: Final = "training.png"
_STAGES: Final = ("vision", "reading", "model")
_SECONDS: Final = 2.0
_KEPT: Final = 0.93
"""Of the weight of a line's loss in the trend, at every line after it."""

_JUDGED_BY: Final = ("mean", "choice", "srcc")
_LABELS: Final = {
    "seen": "trained causes",
    "unseen": "held-out causes",
    "people": "people's scores (SRCC)",
}

Line = dict[str, Any]


def read_log(run: Path, stage: str) -> list[Line]:
    """The lines of a stage's log (see `Course`), oldest first; none where it has not begun."""
    path = run / f"{stage}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def figures(checks: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a validation is judged by: mean AUC, the share of choices that are right, or SRCC."""
    return {
        pool: next(scores[name] for name in _JUDGED_BY if name in scores)
        for pool, scores in checks.items()
    }


@contextmanager
def watching(run: Path, minutes: Mapping[str, float]) -> Generator[None]:
    """Show a bar for each stage, with its loss and last validation; at the end draw the plot.

    minutes: the budget of each stage by name.
    """
    bars = Progress(
        TextColumn("{task.description:8}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} min"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[says]}"),
        console=Console(stderr=True),
    )
    over = Event()
    with bars:
        tasks = {name: bars.add_task(name, total=total, says="") for name, total in minutes.items()}
        thread = Thread(target=_follow, args=(run, bars, tasks, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
    draw(run)


def _follow(run: Path, bars: Progress, tasks: Mapping[str, TaskID], over: Event) -> None:
    last = False
    while not last:
        last = over.wait(_SECONDS)
        for name, task in tasks.items():
            log = read_log(run, name)
            if log:
                bars.update(task, completed=log[-1]["minutes"], says=_says(log))


def _says(log: list[Line]) -> str:
    checked = [line["checks"] for line in log if "checks" in line]
    scores = figures(checked[-1]) if checked else {}
    parts = [f"loss {log[-1]['loss']:.3f}", *(f"{pool} {v:.3f}" for pool, v in scores.items())]
    return ", ".join(parts)


def trend(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and those before it, the nearest weighing most.

    A line of a log is the mean of a few steps, which on a slow machine see a dozen pictures.
    """
    found: list[float] = []
    total = weight = 0.0
    for loss in losses:
        total, weight = _KEPT * total + loss, _KEPT * weight + 1
        found.append(total / weight)
    return found


def draw(run: Path) -> Path:
    """Plot loss and validation of every stage over minutes into `run`/training.png."""
    # Imported here: it takes a second, and only ends of runs need it.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(_STAGES), figsize=(12, 6), squeeze=False)
    for column, stage in enumerate(_STAGES):
        log = read_log(run, stage)
        above, below = axes[0, column], axes[1, column]
        above.set_title(stage)
        minutes, losses = ([line[name] for line in log] for name in ("minutes", "loss"))
        above.plot(minutes, losses, color="tab:blue", alpha=0.3)
        above.plot(minutes, trend(losses), color="tab:blue")
        checked = [line for line in log if "checks" in line]
        for pool in checked[0]["checks"] if checked else ():
            below.plot(
                [line["minutes"] for line in checked],
                [figures(line["checks"])[pool] for line in checked],
                marker="o",
                label=_LABELS[pool],
            )
            below.legend()
        below.set_xlabel("minutes")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("mean cell AUC, SRCC")
    axes[1, 1].set_ylabel("choices right")
    figure.tight_layout()
    path = run / PLOT
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
