"""The command line: each command parses, calls one function, and prints. One file a group of commands."""

from twofold.cli import measuring, studying, training, using
from twofold.cli.frame import app, main

__all__ = ["app", "main", "measuring", "studying", "training", "using"]
