"""Bundles that differ from another in their prompts and context."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edit_json import edit_json

PROMPTS = Path(__file__).parents[1] / "export" / "prompts"


def with_prompts(bundle: Path, folder: Path, prompts: str, context: int) -> Path:
    """Copy a bundle to `folder` with the prompt set of that name and that many tokens of context.

    The tiny models' rotary tables are computed as they are needed, so any context works.
    """
    shutil.copytree(bundle, folder)
    edit_json(
        folder / "manifest.json",
        {
            ("prompts",): json.loads((PROMPTS / f"{prompts}.json").read_text()),
            ("text", "max_context"): context,
        },
    )
    return folder
