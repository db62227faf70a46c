"""`python -m latse` is the command `latse`."""

from latse.cli import command

command()
