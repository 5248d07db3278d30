"""Being asked to stop: SIGTERM, which a scheduler sends before it takes a machine away, and SIGUSR1.

Training stops after the step under way, with a checkpoint of it (`runtime.preemption`). Anything else is stopped where
it is, by the exception `Preempted`.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from tlseg_jax.runtime.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SLURM can be told which to send and how long before the end (--signal)."""


class _Heard:
    """What this process was sent; there is one set of signal handlers a process."""

    process: int | None = None
    name: str | None = None
    waiting = 0
    lock = threading.Lock()
    dropped = sys.unraisablehook


def listen() -> None:
    """From now on be told of `SIGNALS`; call it in the main thread."""
    _Heard.process = os.getpid()
    for number in SIGNALS:
        signal.signal(number, _hear)
    if sys.unraisablehook is not _dropped:
        _Heard.dropped, sys.unraisablehook = sys.unraisablehook, _dropped


def listen_again() -> None:
    """As `listen`, where this process listened before.

    `jax.distributed.initialize` has JAX hear SIGTERM instead, which tells only those that ask it at every step.
    """
    if _Heard.process == os.getpid():
        listen()


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _Heard.name is not None


def asked_by() -> str:
    """The signal's name, in messages; of another process where this one got none."""
    return _Heard.name or "a signal to another process"


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """The body looks at `asked` itself and is not stopped in the middle.

    Raises:
      Preempted: a signal came after the body's last look.
    """
    with _Heard.lock:
        _Heard.waiting += 1
    try:
        yield
    finally:
        with _Heard.lock:
            _Heard.waiting -= 1
    if _Heard.name:
        raise Preempted(_sentence())


def forget() -> None:
    """Listen no more, as before `listen`."""
    for number in SIGNALS:
        if signal.getsignal(number) is _hear:
            signal.signal(number, signal.SIG_DFL)
    if sys.unraisablehook is _dropped:
        sys.unraisablehook = _Heard.dropped
    _Heard.process = _Heard.name = None


def _hear(number: int, frame: FrameType | None) -> None:
    del frame
    if os.getpid() != _Heard.process:  # a child that was forked has no run to save
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    _Heard.name = signal.Signals(number).name
    if not _Heard.waiting:
        raise Preempted(_sentence())


def _dropped(lost: "sys.UnraisableHookArgs") -> None:
    """Where Python drops an exception, as in a destructor or a callback of its collector: ours comes again outside."""
    if not isinstance(lost.exc_value, Preempted):
        _Heard.dropped(lost)
        return
    again = threading.Timer(0.05, _send_again)
    again.daemon = True
    again.start()


def _send_again() -> None:
    if _Heard.name and signal.getsignal(signal.Signals[_Heard.name]) is _hear:
        os.kill(os.getpid(), signal.Signals[_Heard.name])


def _sentence() -> str:
    return f"Stopped by {_Heard.name}: run the same command again to go on from what is done."
