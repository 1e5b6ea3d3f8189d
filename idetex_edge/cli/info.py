"""`idetex-edge info`: which model and engine are in use."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from idetex_edge.assessor import Assessor
from idetex_edge.cli.printing import print_json, print_view
from idetex_edge.cli.views import facts_table


def print_info(assessor: Assessor, as_json: bool) -> None:
    """Print the facts of an assessor's bundle and engine."""
    bundle = assessor.bundle
    manifest = bundle.manifest
    sizes = {name: facts.bytes for name, facts in manifest.files.items()}
    if as_json:
        print_json(
            {
                "version": _version(),
                "model": manifest.name,
                "family": manifest.family,
                "target": manifest.target,
                "precision": manifest.precision,
                "engine": assessor.engine,
                "bundle": str(bundle.path),
                "context": manifest.text.max_context,
                "vocabulary": manifest.text.vocab,
                "bytes": sum(sizes.values()),
                "files": sizes,
            }
        )
        return
    text, vision = manifest.text, manifest.vision
    facts = {
        "idetex-edge": _version(),
        "model": f"{manifest.name} ({manifest.family})",
        "text": f"{text.layers} layers of {text.hidden}, {text.vocab} tokens known, "
        f"{text.max_context} at once",
        "vision": f"{vision.layers} layers of {vision.hidden}, "
        f"up to {manifest.preprocessor.max_pixels:,} pixels",
        "made for": f"{manifest.target}, {manifest.precision}",
        "engine": assessor.engine,
        "bundle": f"{bundle.path}, {_megabytes(sum(sizes.values()))}",
        **{f"  {name}": _megabytes(size) for name, size in sorted(sizes.items())},
    }
    print_view(facts_table(facts))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def _version() -> str:
    try:
        return version("idetex-edge")
    except PackageNotFoundError:
        return "not installed"
