"""``python -m nasattn`` is the command line."""

from nasattn.cli import main

main()
