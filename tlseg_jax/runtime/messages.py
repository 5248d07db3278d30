"""What the library tells of its work, by `logging` and a logger a module, and how commands print it."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from tqdm import tqdm

from tlseg_jax.runtime import processes

_quiet = ContextVar("quiet", default=False)


@contextlib.contextmanager
def shown(wording: Callable[[str], str] = str) -> Iterator[None]:
    """Print what the library tells while the body runs, on stdout and above the bars; of several processes the chief.

    Args:
      wording: from a message to what is printed of it.
    """
    logger, lines = logging.getLogger("tlseg_jax"), _Lines(wording)
    before = logger.level, logger.propagate
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # absl has a handler at the root, and no line is to come twice
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.level, logger.propagate = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Have `shown` print nothing of what this thread tells while the body runs."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


class _Lines(logging.Handler):
    def __init__(self, wording: Callable[[str], str]) -> None:
        super().__init__()
        self._wording = wording

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record. That the reader of our output has gone is raised, as it ends a command."""
        if processes.is_chief() and not _quiet.get():
            tqdm.write(self._wording(record.getMessage()))
            sys.stdout.flush()
