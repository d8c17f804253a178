"""The command line: each command parses, calls one function, and prints. One file a group of commands."""

from twofold.cli import answering, measuring, probing, searching, serving, studying, training, using
from twofold.cli.frame import app, main

__all__ = ["answering", "app", "main", "measuring", "probing", "searching", "serving", "studying", "training", "using"]
