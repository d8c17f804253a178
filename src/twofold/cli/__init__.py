"""The command line: each command parses, calls one function, and prints. One file a group of commands."""

from twofold.cli import measuring, probing, training, using
from twofold.cli.frame import app, main

__all__ = ["app", "main", "measuring", "probing", "training", "using"]
