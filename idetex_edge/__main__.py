"""`python -m idetex_edge` is the command `idetex-edge`."""

from idetex_edge.cli import main

main()
