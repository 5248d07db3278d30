"""Python in a process of its own."""

import functools
import os
import subprocess
import sys
from pathlib import Path

from tests.warm_python import WarmPython

ROOT = Path(__file__).resolve().parents[1]
"""The clone."""
TIMEOUT = 1800


@functools.cache
def _warm(environment: frozenset[tuple[str, str]]) -> WarmPython:
    del environment  # each has a process of its own, since much of it is read by what is imported
    return WarmPython()


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What Python with these arguments prints, and how it ends; in the clone, with these variables besides."""
    if arguments[0] == "-m" and arguments[1].startswith(("experiments.", "benchmarks.")) and not environment:
        now = frozenset((k, v) for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST")
        return _warm(now).run(arguments[1], arguments[2:], TIMEOUT)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
