"""Bundles by name: a folder here, or a repository on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from idetex_edge.errors import BundleError

# As the hub has it: no path that a typing error made is taken for one.
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def bundle_folder(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a bundle, downloaded into the hub's cache when it is an id `owner/name`.

    Raises BundleError when there is neither such a folder nor such a repository.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if isinstance(name, os.PathLike) or not _HUB_ID.fullmatch(name):
        raise BundleError(f"there is no bundle folder {os.fspath(name)!r}; check the path")
    # Imported here: it takes longer to import than all of idetex_edge.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise BundleError(
            f"there is no bundle folder {name!r}, and the Hugging Face hub gave none: {reason}"
        ) from None
