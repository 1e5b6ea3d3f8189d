"""The command `idetex-edge`."""

from idetex_edge.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command on the process's arguments; exits with 0, 1 (failed), 2 (usage) or 130."""
    app(prog_name="idetex-edge")
