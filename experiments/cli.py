"""How every command starts and how it fails: one sentence and a non-zero exit code for the user's faults."""

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from tlseg_jax.checkpoints.shipped import shipped_model, shipped_names
from tlseg_jax.commands.flags import flags_for
from tlseg_jax.remote import entry
from tlseg_jax.remote.address import parse_address
from tlseg_jax.runtime import cluster, elsewhere, processes, signals
from tlseg_jax.runtime.errors import InputError, Preempted
from tlseg_jax.runtime.files import full_disk
from tlseg_jax.runtime.messages import shown, write_line
from tlseg_jax.studies.ensemble import NAME as ENSEMBLE
from tlseg_jax.studies.ensemble import runs_of

EXIT_INPUT = 2
"""Exit code for a fault in what the user gave."""

EXIT_PREEMPTED = 75
"""Exit code of a command that a signal stopped and that goes on when it is run again (EX_TEMPFAIL): for a requeue."""

workdir, store = entry.work_folder, entry.read_folder
"""The folder that a flag's path, s3:// or gs:// address stands for: to work in, and to read prepared data from."""


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
            with shown(lambda text: write_line(flags_for(text))), elsewhere.using(entry.Buckets()):
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


def show(text: str) -> None:
    """Print what the library says, with the settings that it names written as flags."""
    print(flags_for(text))


def required(flag: "flags.FlagHolder[str | None]") -> str:
    """A flag's value, which must have been given (absl's own check would end in a traceback).

    Raises:
      InputError: it was not.
    """
    if not flag.value:
        raise InputError(f"--{flag.name} is missing: see --help.")
    return flag.value


def run_folder(text: str) -> Path:
    """The run, or the model made from one, that a flag names: fetched where it is in a bucket.

    A name of a model that comes with the package is that model, unless there is such a folder here.

    Raises:
      InputError: see `workdir`; or there is nothing in the bucket.
    """
    if text in shipped_names() and not Path(text).exists():
        return shipped_model(text)
    above, _, name = text.rpartition("/")
    folder = workdir(above, "") / name if name.endswith(".stablehlo") and above else workdir(text, "")
    if "://" in text and not folder.exists():
        raise InputError(f"There is nothing at {text}: give the address of a run that has trained.")
    return folder


def run_folders(text: str) -> list[Path]:
    """The runs or models that predict together: a list with commas, or the ensemble.json that a sweep wrote.

    Raises:
      InputError: see `run_folder` and `ensemble.runs_of`.
    """
    if text.endswith(ENSEMBLE) and Path(text).is_file():
        return runs_of(Path(text))
    return [run_folder(one) for one in text.split(",")]


def local(flag: "flags.FlagHolder[str | None]") -> Path:
    """A path that a flag must give, to be written here.

    Raises:
      InputError: it is missing, or an address.
    """
    text = required(flag)
    if parse_address(text) is not None:
        raise InputError(f"--{flag.name}={text} is in a bucket: give a local folder, and copy that there.")
    return Path(text)


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
