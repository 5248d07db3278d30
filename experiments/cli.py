"""How every command starts and how it fails: one sentence and a non-zero exit code for the user's faults."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from tlseg_jax.errors import InputError

EXIT_INPUT = 2
"""Exit code for a fault in what the user gave."""


def full_disk(error: BaseException) -> bool:
    """Whether an error, ours or from a library that only passes text on, is a full disk."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, ValueError | RuntimeError | OSError) and "No space left on device" in str(error)


def run(main: Callable[[], None]) -> None:
    """Parse the flags and call `main`; a fault in the input ends with one sentence and exit code 2."""

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _fail(f"'{argv[1]}' is not a flag: every setting is given as --name=value (see --help).")
        if not flags.FLAGS["verbosity"].present:
            # Orbax tells of every file it writes, and logs with a traceback what it then raises here too.
            logging.set_verbosity(logging.FATAL)
        try:
            main()
        except InputError as e:
            _fail(str(e))
        except KeyboardInterrupt:
            print("Interrupted: run the same command again to go on from here.", file=sys.stderr)
            raise SystemExit(130) from None
        except BrokenPipeError:
            # The reader of our output (such as head) has gone: not an error of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except (OSError, ValueError, RuntimeError) as e:
            if not full_disk(e):
                raise
            _fail(
                "The disk is full: nothing half written was kept; free some space, or choose another "
                "folder, and run the same command again."
            )

    app.run(guarded, flags_parser=_parse)


def required(flag: "flags.FlagHolder[str | None]") -> str:
    """A flag's value, which must have been given (absl's own check would end in a traceback).

    Raises:
      InputError: it was not.
    """
    if not flag.value:
        raise InputError(f"--{flag.name} is missing: see --help.")
    return flag.value


def _parse(argv: Sequence[str]) -> list[str]:
    """What is left of the arguments besides flags; absl's own parser ends in other words and with code 1."""
    try:
        return flags.FLAGS(argv)  # type: ignore[no-any-return]
    except flags.Error as e:
        fault = str(e).removeprefix("flag ").rstrip(" .")
        _fail(fault if fault.endswith("?") else f"{fault} (see --help).")


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(EXIT_INPUT)
