"""A process of its own for each framework, which does what it is told and otherwise stands still."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class WorkerError(Exception):
    """What went wrong in a worker's process, in one line."""


class Worker:
    """An object that lives in another process, called by the names of its methods.

    While no call is under way the process waits on a pipe: its framework's threads sleep, and leave the cores
    to the other framework's.
    """

    def __init__(self, make: Callable[..., Any], *given: Any) -> None:
        """Start a process and make the object there.

        Args:
          make: an importable class or function that gives the object.
        """
        here, there = multiprocessing.get_context("spawn").Pipe()
        self._pipe = here
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(there, make, given), daemon=True
        )
        self._process.start()
        there.close()
        self._answer()

    def call(self, method: str, *given: Any) -> Any:
        """Call a method there and wait for what it returns.

        Raises:
          WorkerError: it raised, or the process ended.
        """
        try:
            self._pipe.send((method, given))
        except OSError:
            raise WorkerError("the process had ended") from None
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self) -> Any:
        try:
            fault, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            how = self._process.exitcode
            raise WorkerError(f"the process ended with code {how}" + (", as if out of memory" * (how == -9))) from None
        if fault:
            raise WorkerError(fault)
        return answer


def _serve(pipe: Connection, make: Callable[..., Any], given: tuple[Any, ...]) -> None:
    made = None
    while True:
        try:
            answer = None
            if made is None:
                made = make(*given)
            else:
                method, arguments = pipe.recv()
                answer = getattr(made, method)(*arguments)
            pipe.send(("", answer))
        except (EOFError, BrokenPipeError):
            return
        except Exception as e:
            lines = [line.strip() for line in str(e).splitlines() if line.strip()]
            pipe.send((f"{type(e).__name__}: {lines[0] if lines else ''}"[:300], None))
            if made is None:
                return
