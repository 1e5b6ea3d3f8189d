"""`optimum-cli export idetex`: the same as `python -m export convert`, found by optimum's CLI.

optimum reads this folder of its own namespace wherever an installation adds to it; no
`__init__.py` may stand above this file.
"""

from __future__ import annotations

from argparse import ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand


class IdetexExportCommand(BaseOptimumCLICommand):
    """Takes the options of `python -m export convert` and hands them on."""

    COMMAND = CommandInfo(
        name="idetex", help="Export a Qwen2-VL or Qwen2.5-VL quality model to a proven bundle."
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the options as the command itself declares them."""
        from export.optimum import declare_options

        declare_options(parser)

    def run(self) -> None:
        """Convert."""
        from export.optimum import run

        run(self.args)


REGISTER_COMMANDS = [(IdetexExportCommand, ExportCommand)]
