"""From a checkpoint folder to a proven bundle.

The bundle is built in a hidden folder beside its destination and moved there when whole, so a
failed or interrupted run leaves nothing at the destination.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from export.checkpoint import Checkpoint, open_checkpoint, read_json
from export.graphs.decoder import decoder_graph, embedding_table
from export.graphs.vision import vision_graph
from export.graphs.write import Advance, write_graph, write_tensor
from export.parity import measure_parity
from export.targets import Precision, find_target
from idetex_edge.bundle import (
    MANIFEST,
    TOKENIZER,
    Bundle,
    EmbeddingFacts,
    Manifest,
    file_facts,
    open_bundle,
)
from idetex_edge.engines import load_engine
from idetex_edge.errors import BundleError, ExportError
from idetex_edge.preprocess import Preprocessor
from idetex_edge.prompts import PromptSet
from idetex_edge.vocabulary import (
    BOX_END,
    BOX_START,
    IM_END,
    IM_START,
    IMAGE_PAD,
    OBJECT_REF_END,
    OBJECT_REF_START,
    VISION_END,
    VISION_START,
)

PARITY: Final = "parity.json"
DEFAULT_PROMPTS: Final = Path(__file__).parent / "prompts" / "vida.json"
_GRAPHS: Final = {"vision": "vision.onnx", "decoder": "decoder.onnx"}
_EMBEDDING: Final = "embedding.bin"
_MARKERS: Final = (
    *(IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD),
    *(OBJECT_REF_START, OBJECT_REF_END, BOX_START, BOX_END),
)


def convert(
    model: Path,
    output: Path,
    target: str,
    precision: str,
    *,
    pictures: Path | None,
    overwrite: bool,
    advance: Advance,
) -> Bundle:
    """Convert the checkpoint in `model` and check it against transformers.

    pictures: a folder of photographs for the check; None takes scikit-image's.
    Raises ExportError when the checkpoint, target or destination cannot be used, or when the
    result differs from the checkpoint by more than the precision's limits.
    """
    found, form = find_target(target, precision)
    checkpoint = open_checkpoint(model)
    with _built_beside(output, overwrite) as folder:
        manifest = _describe(checkpoint, target, precision, form.embedding)
        _write(checkpoint, folder, form, advance)
        bundle = Bundle(folder, manifest)
        advance("comparing with the checkpoint", 0, 1)
        parity = measure_parity(model, bundle, load_engine(found.engine, bundle), pictures)
        parity.require(form)
        _write_json(folder / PARITY, {"precision": precision} | parity.to_dict())
        files = {path.name: file_facts(path) for path in sorted(folder.iterdir())}
        _write_json(folder / MANIFEST, replace(manifest, files=files).to_dict())
        open_bundle(folder)
        advance("comparing with the checkpoint", 1, 1)
    return open_bundle(output)


@contextmanager
def _built_beside(output: Path, overwrite: bool) -> Generator[Path]:
    """Lend a fresh folder that replaces `output` at the end, or vanishes on an error."""
    replaceable = (output / MANIFEST).is_file() or (output.is_dir() and not any(output.iterdir()))
    if output.exists() and not (overwrite and replaceable):
        hint = "pass --overwrite" if replaceable else "it is not a bundle, so"
        raise ExportError(f"{output} exists; {hint} or give another --output")
    output = output.absolute()
    folder = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True)
        yield folder
        if output.exists():
            shutil.rmtree(output)
        folder.replace(output)
    except OSError as error:
        raise ExportError(f"cannot make {output}: {error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _describe(checkpoint: Checkpoint, target: str, precision: str, embedding: str) -> Manifest:
    """Make the manifest, but for the list of files."""
    tokens = _markers(checkpoint)
    source = checkpoint.folder
    return Manifest(
        name=source.resolve().name,
        family=checkpoint.family,
        target=target,
        precision=precision,
        text=checkpoint.text,
        vision=checkpoint.vision,
        preprocessor=_preprocessor(checkpoint),
        prompts=_prompts(source),
        tokens=tokens,
        stop=tuple(sorted({*checkpoint.stop, tokens[IM_END]})),
        graphs=_GRAPHS,
        embedding=EmbeddingFacts(
            _EMBEDDING, embedding, (checkpoint.text.vocab, checkpoint.text.hidden)
        ),
        files={},
    )


def _write(checkpoint: Checkpoint, folder: Path, form: Precision, advance: Advance) -> None:
    """Write the tokenizer, the graphs and all weights."""
    shutil.copyfile(checkpoint.folder / TOKENIZER, folder / TOKENIZER)
    embedding = write_tensor(embedding_table(checkpoint, form.embedding), folder, _EMBEDDING)
    vision = vision_graph(checkpoint, form.vision)
    write_graph(vision, folder, _GRAPHS["vision"], advance)
    decoder = decoder_graph(checkpoint, form.decoder, embedding)
    write_graph(decoder, folder, _GRAPHS["decoder"], advance)


def _markers(checkpoint: Checkpoint) -> dict[str, int]:
    """Look up the special tokens; raises ExportError when the tokenizer lacks one of ours."""
    path = checkpoint.folder / TOKENIZER
    read_json(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ExportError(f"cannot read {path}: {error}") from None
    added = tokenizer.get_added_tokens_decoder()
    tokens = {token.content: i for i, token in added.items() if token.special}
    for marker in _MARKERS:
        found = tokenizer.token_to_id(marker)
        if found is None or found >= checkpoint.text.vocab:
            raise ExportError(f"the tokenizer has no {marker} within the model's vocabulary")
        tokens[marker] = found
    if tokens[IMAGE_PAD] != checkpoint.image_token_id:
        raise ExportError(
            f"config.json says that {IMAGE_PAD} is token {checkpoint.image_token_id}, "
            f"the tokenizer {tokens[IMAGE_PAD]}; they are not of one model"
        )
    return tokens


def _preprocessor(checkpoint: Checkpoint) -> Preprocessor:
    file = "preprocessor_config.json"
    try:
        found = Preprocessor.from_dict(read_json(checkpoint.folder / file))
    except BundleError as error:
        raise ExportError(f"{file}: {error}") from None
    facts = checkpoint.vision
    theirs = (found.patch_size, found.merge_size, found.temporal_patch_size)
    if theirs != (facts.patch, facts.merge, facts.temporal):
        raise ExportError(
            f"{file} and config.json disagree on the sizes of patches; they are not of one model"
        )
    return found


def _prompts(source: Path) -> PromptSet:
    own = source / "prompts.json"
    try:
        return PromptSet.from_dict(read_json(own if own.is_file() else DEFAULT_PROMPTS))
    except BundleError as error:
        raise ExportError(f"{own.name}: {error}") from None


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
