"""Files and folders that are either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from idetex_edge.errors import OutputError


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Lend a place to write to; when the block ends the file there replaces `path`.

    Folders are made as needed. Raises OutputError when that, or writing in the block, fails.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}; choose another place") from None


@contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """Lend a hidden folder's name; what the block makes there becomes `path`, where nothing is yet.

    The hidden one never stays. Raises OutputError when writing in the block fails.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        yield partial
        partial.rename(path)
    except OSError as error:
        raise OutputError(f"cannot make {path}: {error}; give another --output") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
