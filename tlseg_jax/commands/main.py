"""The installed command: `tlseg COMMAND --flags`, one program for all commands."""

import ast
import difflib
import importlib
import sys
from pathlib import Path

from tlseg_jax import __version__

COMMANDS = (
    "prepare", "pretrain", "finetune", "evaluate", "predict", "export", "postprocess", "sweep", "report", "launch"
)  # fmt: skip
"""Modules of this folder, in the order in which they are used."""

EXIT_INPUT = 2


def main() -> None:
    """Run the command that the first argument names; without one, list them all."""
    name = sys.argv[1] if len(sys.argv) > 1 else "help"
    if name in ("help", "--help", "-h", "-?", "--helpfull", "--helpshort"):
        print(_overview())
    elif name == "--version":
        print(__version__)
    elif name in COMMANDS:
        sys.argv[:2] = [f"tlseg {name}"]
        from tlseg_jax.commands import cli  # here, so that the list of commands waits for nothing

        command = importlib.import_module(f"tlseg_jax.commands.{name}")
        sys.modules["__main__"].__doc__ = command.__doc__  # which --help shows
        cli.start(command)
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(COMMANDS)}."
        print(f"error: There is no command '{name}': {hint}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT)


def _overview() -> str:
    """All commands, a line each."""
    lines = [f"  {name:12} {first_line(name)}" for name in COMMANDS]
    return "\n".join(["Usage: tlseg COMMAND --flag=value ...   (tlseg COMMAND --help has its flags)", "", *lines])


def first_line(name: str) -> str:
    """What a command's module says of itself first, without importing it and its packages."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
