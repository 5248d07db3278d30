"""Python in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The clone."""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What Python with these arguments prints, and how it ends; in the clone, with these variables besides."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
