"""`python -m edgepress` is the command `edgepress`."""

from edgepress.cli.main import main

main(prog_name="edgepress")
