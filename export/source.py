"""Where a checkpoint is: a folder here, or a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from idetex_edge.errors import ExportError

# As the hub has it: no path that a typing error made is taken for one.
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES: Final = ("*.json", "*.safetensors", "*.jinja")


def checkpoint_folder(name: str | Path) -> Path:
    """The folder of a checkpoint, downloaded into the hub's cache when it is an id `owner/name`.

    Raises ExportError when there is neither such a folder nor such a repository.
    """
    folder = Path(name)
    if folder.exists() or isinstance(name, Path):
        return folder
    if not _HUB_ID.fullmatch(name):
        raise ExportError(f"there is no checkpoint folder {name!r}; check the path")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ExportError(
            f"there is no checkpoint folder {name!r}, and the Hugging Face hub gave none: {reason}"
        ) from None
