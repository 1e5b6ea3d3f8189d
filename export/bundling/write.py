"""Writing what a bundle holds into a folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from export.bundling.graphs import EMBEDDING, GRAPHS, Recipe, lowered_graphs
from export.bundling.manifest import describe
from export.graphs.decoder import embedding_table
from export.graphs.write import Advance, write_graph, write_tensor
from idetex_edge.bundle import (
    MANIFEST,
    TOKENIZER,
    Bundle,
    Manifest,
    file_facts,
    open_bundle,
)


def write_model(recipe: Recipe, folder: Path, advance: Advance) -> None:
    """Write tokenizer, embedding table and graphs, with all weights."""
    embedding = write_vocabulary(recipe, folder)
    for name, model in lowered_graphs(recipe, embedding):
        write_graph(model, folder, GRAPHS[name], advance)


def write_vocabulary(recipe: Recipe, folder: Path) -> ir.ExternalTensor:
    """Write tokenizer and embedding table, and refer to the table."""
    shutil.copyfile(recipe.checkpoint.folder / TOKENIZER, folder / TOKENIZER)
    table = embedding_table(recipe.checkpoint, recipe.precision.embedding)
    return write_tensor(table, folder, EMBEDDING)


def write_draft(recipe: Recipe, folder: Path, advance: Advance) -> Bundle:
    """Write a recipe's bundle, without any proof, for ONNX Runtime to run here and now.

    What is made for a device that is not here is ONNX as well.
    """
    write_model(recipe, folder, advance)
    return seal(folder, describe(recipe, "draft", "onnx-standard", "draft"))


def write_json(path: Path, data: object) -> None:
    """Write JSON for people to read."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest over all files that lie in the folder, and open the bundle."""
    files = {
        path.name: file_facts(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST
    }
    write_json(folder / MANIFEST, replace(manifest, files=files).to_dict())
    return open_bundle(folder)
