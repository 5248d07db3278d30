"""How every command starts and how it fails: one sentence and a non-zero exit code for the user's faults."""

import inspect
import io
import os
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from tlseg_jax.actions.places import entered
from tlseg_jax.commands.flags import flags_for
from tlseg_jax.runtime import cluster, processes, signals
from tlseg_jax.runtime.errors import InputError, Preempted
from tlseg_jax.runtime.files import full_disk
from tlseg_jax.runtime.messages import shown, write_line

EXIT_INPUT = 2
"""Exit code for a fault in what the user gave."""

EXIT_PREEMPTED = 75
"""Exit code of a command that a signal stopped and that goes on when it is run again (EX_TEMPFAIL): for a requeue."""


def start(command: types.ModuleType) -> None:
    """Run a module of this folder as the program: its flags are the program's own, which --help lists."""
    for flag in flags.FLAGS.get_key_flags_for_module(command.__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    takes_the_rest = bool(inspect.signature(command.main).parameters)
    (run_command if takes_the_rest else run)(command.main)


def run(main: Callable[[], None]) -> None:
    """Parse the flags and call `main`; a fault in the input ends with one sentence and exit code 2."""

    def no_more(rest: Sequence[str]) -> None:
        if rest:
            _fail(f"'{rest[0]}' is not a flag: every setting is given as --name=value (see --help).")
        main()

    run_command(no_more)


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """As `run`, for a `main` that takes what is behind the flags, which begins after a "--"."""

    def guarded(argv: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            # Orbax tells of every file it writes, and logs with a traceback what it then raises here too.
            logging.set_verbosity(logging.FATAL)
        try:
            signals.listen()
            with shown(lambda text: write_line(flags_for(text))), entered():
                main(argv[1:])
            cluster.finish()
        except InputError as e:
            _fail(flags_for(str(e)))
        except Preempted as e:
            tells = processes.is_chief() or not e.everywhere
            if e.everywhere:  # the chief may have had to write longer than the others
                cluster.finish()
            _end(f"stopped: {e}" if tells else "", EXIT_PREEMPTED)
        except KeyboardInterrupt:
            _end("Interrupted: run the same command again to go on from here.", 130)
        except BrokenPipeError:
            # The reader of our output (such as head) has gone: not an error of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _end("", 0)
        except Exception as e:
            if full_disk(e):
                _fail(
                    "The disk is full: nothing half written was kept; free some space, or choose another "
                    "folder, and run the same command again."
                )
            if processes.count() == 1:
                raise
            if cluster.lost_another(e):
                _end(
                    f"Process {processes.index()} lost another process of the run: what that one said last, or its "
                    "machine's log, tells why; the same command goes on from the last checkpoint.",
                    EXIT_PREEMPTED,
                )
            _end(traceback.format_exc().rstrip(), 1)

    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a name is no reason to end
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    """What is left of the arguments besides flags; absl's own parser ends in other words and with code 1."""
    try:
        return flags.FLAGS(argv)  # type: ignore[no-any-return]
    except flags.Error as e:
        fault = str(e).removeprefix("flag ").rstrip(" .")
        _fail(fault if fault.endswith("?") else f"{fault} (see --help).")


def _fail(sentence: str) -> NoReturn:
    _end(f"error: {sentence}", EXIT_INPUT)


def _end(text: str, code: int) -> NoReturn:
    """End this process, and with it the others of its run; the first that ends says why, those of its kind nothing."""
    first = cluster.fail(code, text)
    if first.process != processes.index() and not text.endswith(first.sentence):
        text = first.as_said()
    elif first.process != processes.index():
        text = ""
    if text:
        print(text, file=sys.stderr)
    cluster.leave(first.code)
    raise SystemExit(code) from None
