"""Colors and helpers that the scripts share. Colors only on a terminal, and never with NO_COLOR."""

import os
import sys

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def bold(text):
    return paint("1", text)


def dim(text):
    return paint("2", text)


def green(text):
    return paint("32", text)


def red(text):
    return paint("31", text)


def yellow(text):
    return paint("33", text)


def seconds(value):
    """A duration in readable form: `840 ms`, `12 s`, `3 min 05 s`."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


def target_dir(root):
    """The target directory of cargo."""
    return os.path.join(root, os.environ.get("CARGO_TARGET_DIR", "target"))
