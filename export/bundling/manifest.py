"""The manifest of a bundle to be, from its checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from export.bundling.graphs import EMBEDDING, GRAPHS, Recipe
from export.checkpoint import Checkpoint, read_json
from idetex_edge.bundle import TOKENIZER, CacheFacts, EmbeddingFacts, Manifest
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

DEFAULT_PROMPTS: Final = Path(__file__).parents[1] / "prompts" / "vida.json"
_MARKERS: Final = (
    *(IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD),
    *(OBJECT_REF_START, OBJECT_REF_END, BOX_START, BOX_END),
)


def describe(recipe: Recipe, name: str, target: str, precision: str) -> Manifest:
    """Make the manifest, but for the list of files.

    Raises ExportError when tokenizer, preprocessor or prompts are missing or do not fit.
    """
    checkpoint = recipe.checkpoint
    tokens = _markers(checkpoint)
    text = checkpoint.text
    context = recipe.slots or text.max_context
    return Manifest(
        name=name,
        family=checkpoint.family,
        target=target,
        precision=precision,
        text=replace(text, max_context=context),
        vision=checkpoint.vision,
        preprocessor=_preprocessor(checkpoint),
        prompts=_prompts(checkpoint.folder),
        tokens=tokens,
        stop=tuple(sorted({*checkpoint.stop, tokens[IM_END]})),
        graphs=dict(GRAPHS),
        embedding=EmbeddingFacts(EMBEDDING, recipe.precision.embedding, (text.vocab, text.hidden)),
        files={},
        cache=CacheFacts(recipe.target.floats.numpy().name, recipe.slots),
    )


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
