"""A job that takes a minute, for the tests of what becomes of worker processes. Run as a module, it starts some."""

import dataclasses
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.runtime.errors import Preempted
from tlseg_jax.runtime.jobs import run_jobs


@dataclasses.dataclass(frozen=True)
class WaitingJob:
    """Where to note that it began, and that it ended."""

    files: ScanFiles
    folder: Path


def wait_a_minute(job: WaitingJob) -> dict[str, Any]:
    """Note the beginning, wait, and note the end."""
    (job.folder / f"{job.files.subject}.began").touch()
    time.sleep(60)
    (job.folder / f"{job.files.subject}.ended").touch()
    return {}


def main() -> None:
    """Three such jobs in two workers; SIGTERM is told as a command tells it."""

    def stop(*_: object) -> None:
        raise Preempted("The machine is being taken away.")

    signal.signal(signal.SIGTERM, stop)
    folder = Path(sys.argv[1])
    jobs = [WaitingJob(ScanFiles(f"s{i}", folder / "scan"), folder) for i in range(3)]
    try:
        run_jobs(jobs, wait_a_minute, 2, False, "test")
    except Preempted:
        sys.exit(75)


if __name__ == "__main__":
    main()
