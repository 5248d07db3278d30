"""What the library tells of its work: records of one logger, which commands print as lines."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from tqdm import tqdm

from tlseg_jax.runtime import processes

log = logging.getLogger("tlseg_jax")
"""One for all modules, as a filter holds for its own logger only."""

_quiet = ContextVar("quiet", default=False)
log.addFilter(lambda record: not _quiet.get())


def write_line(text: str) -> None:
    """Print on stdout, above any bars."""
    tqdm.write(text)
    sys.stdout.flush()


@contextlib.contextmanager
def shown(write: Callable[[str], None] = write_line) -> Iterator[None]:
    """Have `write` called with what is told while the body runs; of several processes only in the chief."""
    handler, before = logging.Handler(), (log.level, log.propagate)
    # What `write` raises ends the body, as it does where the reader of our output has gone.
    handler.emit = lambda record: write(record.getMessage()) if processes.is_chief() else None  # type: ignore[method-assign]
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # absl's handler at the root would print it again
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before[1]
        log.setLevel(before[0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Have this thread tell nothing while the body runs."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
