"""The installed command: `tlseg COMMAND --flags`, one program for all commands."""

import ast
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
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
        start(name, own_words=True)
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(COMMANDS)}."
        print(f"error: There is no command '{name}': {hint}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT)


def start(name: str, *, own_words: bool = False) -> None:
    """Run a command as the program; what can be told of its paths is told before what is slow to import.

    Args:
      name: one of `COMMANDS`.
      own_words: have --help begin with what the command's module says of itself, not with what this program's does.
    """
    given = given_in(sys.argv[1:])
    # Of several processes one tells for all, which takes what they have in common (`cli`).
    if "JAX_PROCESS_ID" not in os.environ and not given.keys() & {"help", "flagfile", "process_id", "coordinator"}:
        from tlseg_jax.actions import there  # here, so that the list of commands waits for nothing
        from tlseg_jax.commands.flags import flags_for
        from tlseg_jax.runtime.errors import InputError

        try:
            there.check(name, given)
        except InputError as e:
            print(f"error: {flags_for(str(e), there.settings_looked_at())}", file=sys.stderr)
            raise SystemExit(EXIT_INPUT) from None
    from tlseg_jax.commands import cli

    command = importlib.import_module(f"tlseg_jax.commands.{name}")
    if own_words:
        sys.modules["__main__"].__doc__ = command.__doc__
    cli.start(command)


def given_in(arguments: Sequence[str]) -> dict[str, str]:
    """Flag -> what was written for it, as --name=value or --name value, the last one where it is there twice.

    No flag is known yet: one without a value has whatever follows, or nothing.
    """
    given: dict[str, str] = {}
    for at, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            following = arguments[at + 1] if at + 1 < len(arguments) else "-"
            given[name] = value if equals else "" if following.startswith("-") else following
    return given


def _overview() -> str:
    """All commands, a line each."""
    lines = [f"  {name:12} {first_line(name)}" for name in COMMANDS]
    return "\n".join(["Usage: tlseg COMMAND --flag=value ...   (tlseg COMMAND --help has its flags)", "", *lines])


def first_line(name: str) -> str:
    """What a command's module says of itself first, without importing it and its packages."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
