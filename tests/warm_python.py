"""A Python that has imported the library already, and a copy of it for each call: a command starts in milliseconds.

A copy is a process of its own, with its arguments, its output and its end; what it shares with the others is what
importing leaves, none of which is a command's. `tests/processes.py` asks for them; what is about importing, about an
environment or about options of Python's is called in a Python that starts anew.
"""

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import runpy
import select
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parents[1]


class WarmPython:
    """The process to copy, which starts with the environment of now; it ends with this one."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_python"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def close(self) -> None:
        """End it, which no copy is left to hinder."""
        self.process.communicate()

    def run(self, module: str, arguments: tuple[str, ...], timeout: float) -> subprocess.CompletedProcess[str]:
        """As `python -m module arguments`, in the clone."""
        asked, told = self.process.stdin, self.process.stdout
        assert asked is not None and told is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("out", "err")]
            asked.write(json.dumps([module, arguments, *map(str, files)]) + "\n")
            asked.flush()
            if not select.select([told], [], [], timeout)[0]:
                self.process.kill()
                raise subprocess.TimeoutExpired([module, *arguments], timeout)
            code = int(told.readline())
            out, err = (file.read_text(encoding="utf-8") for file in files)
        return subprocess.CompletedProcess([module, *arguments], code, out, err)


def _import_all() -> None:
    """The library without its commands, whose flags are each program's own."""
    import tlseg_jax

    for found in pkgutil.walk_packages(tlseg_jax.__path__, "tlseg_jax."):
        if not found.name.startswith("tlseg_jax.commands") and not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def _become(module: str, arguments: list[str], out: str, err: str) -> int:
    """What `python -m` does, to the exit code."""
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    for path, number in ((out, 1), (err, 2)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    sys.argv = ["python", *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code: Any = 0
    except SystemExit as e:
        code = e.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    return code or 0


def _end(code: int) -> None:
    """What Python does at its end."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError, ValueError):
            stream.flush()
    os._exit(code)


def serve() -> None:
    """Make a copy for each line of the input, and tell its exit code."""
    _import_all()
    jax.config.update("jax_disable_most_optimizations", True)  # of two steps compiling takes most
    for line in sys.stdin:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX's about copies: this process computes nothing
            child = os.fork()
        if not child:
            _end(_become(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
