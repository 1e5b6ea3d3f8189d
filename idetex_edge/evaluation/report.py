"""An evaluation as tables for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from idetex_edge.evaluation.evaluate import Agreement, Evaluation
from idetex_edge.evaluation.scoring import Scores
from idetex_edge.vocabulary import DISTORTIONS


def report(evaluation: Evaluation) -> Group:
    """The challenge's scores, average precision by class, accuracy by concern, correlations."""
    scores = evaluation.scores
    title = f"{evaluation.model} on {evaluation.engine}, pictures: {evaluation.pictures}"
    tables = [_overall(scores, title), _classes(scores), _concerns(scores)]
    if evaluation.agreement is not None:
        tables.append(_agreement(evaluation.agreement))
    return Group(*tables)


def _overall(scores: Scores, title: str) -> Table:
    table = _table(title, "Score", "Value")
    for name, value in scores.to_dict().items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    return table


def _classes(scores: Scores) -> Table:
    table = _table("Average precision by class", "Class", "Region", "Distortion", "Description")
    columns = (scores.regions, scores.distortions, scores.descriptions)
    order = [name.lower() for name in DISTORTIONS]
    found = {name.lower() for column in columns for name in column}
    for name in sorted(found, key=lambda name: (name not in order, name)):
        cells: list[str] = []
        for column in columns:
            spelled = [value for key, value in column.items() if key.lower() == name]
            cells.append(" ".join(f"{value:.4f}" for value in spelled) or "-")
        table.add_row(name.capitalize(), *cells)
    return table


def _concerns(scores: Scores) -> Table:
    table = _table("Multiple choice by concern", "Concern", "Right", "Asked", "Accuracy")
    for concern, tally in scores.concerns.items():
        table.add_row(concern, str(tally.right), str(tally.total), f"{tally.share:.4f}")
    return table


def _agreement(agreement: Agreement) -> Table:
    table = _table("Agreement with people's scores", "Series", "Photographs", "SRCC", "PLCC")
    rows = dict(agreement.series)
    if agreement.overall is not None:
        rows = {"all": agreement.overall, **rows}
    for name, found in rows.items():
        table.add_row(name, str(found.count), f"{found.srcc:.4f}", f"{found.plcc:.4f}")
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for other in others:
        table.add_column(other, justify="right")
    return table
