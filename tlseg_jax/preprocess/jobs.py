"""Many scans at once: jobs over a pool of processes, each with a result or the reason why there is none."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from tlseg_jax.errors import InputError
from tlseg_jax.preprocess.scan import ScanFiles


class HasFiles(Protocol):
    """A job for one subject."""

    @property
    def files(self) -> ScanFiles:
        """Where the subject's files are."""


J = TypeVar("J", bound=HasFiles)
Result = dict[str, Any] | str
"""A subject's record, or one sentence that says why it is excluded."""


def run_jobs(
    jobs: Sequence[J], work: Callable[[J], Result], workers: int, progress: bool, title: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Do the jobs.

    Args:
      jobs: one a subject.
      work: what to do; a function of a module, as it goes to other processes.
      workers: processes; 1 stays in this one.
      progress: whether to show a bar.
      title: of the bar.

    Returns:
      Subject -> record, and subject -> reason for those that failed.

    Raises:
      InputError: a worker process was killed.
    """
    from tqdm import tqdm

    records: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    if not jobs:
        return records, failed
    bar = tqdm(total=len(jobs), desc=title, unit="scan", disable=not progress)

    def take(job: J, result: Result) -> None:
        if isinstance(result, str):
            failed[job.files.subject] = result
        else:
            records[job.files.subject] = result
        bar.update()

    with bar:
        if workers <= 1 or len(jobs) == 1:
            for job in jobs:
                take(job, work(job))
            return records, failed
        pool = ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn"), _ignore_interrupt)
        try:
            futures: dict[Future[Result], J] = {pool.submit(work, j): j for j in jobs}
            for future in as_completed(futures):
                take(futures[future], future.result())
        except BrokenProcessPool:
            raise InputError(
                "A worker process was killed, most likely for want of memory: run the same command again "
                "with --workers=1; what is done is kept."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return records, failed


def _ignore_interrupt() -> None:
    """In a worker: Ctrl-C is the parent's to handle; a scan in flight is finished and kept."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
