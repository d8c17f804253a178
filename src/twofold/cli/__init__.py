"""The command line: each command parses, calls one function, and prints. One file a group of commands."""

from twofold.cli import answering, measuring, searching, serving, training, using
from twofold.cli.frame import app, main

__all__ = ["answering", "app", "main", "measuring", "searching", "serving", "training", "using"]
