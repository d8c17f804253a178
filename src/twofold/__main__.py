"""`python -m twofold`: the command line, where its script is not on the path."""

from twofold.cli import main

main()
