"""Many scans at once: jobs over a pool of processes, each with a result or the reason why there is none."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from tlseg_jax.runtime import signals
from tlseg_jax.runtime.errors import InputError, Preempted


class HasSubject(Protocol):
    """What a job is about."""

    @property
    def subject(self) -> str:
        """Unique name."""


class Job(Protocol):
    """A job for one subject."""

    @property
    def files(self) -> HasSubject:
        """Whose files they are."""


J = TypeVar("J", bound=Job)
Result = dict[str, Any] | str
"""A subject's record, or one sentence that says why it is excluded."""


def run_jobs(
    jobs: Sequence[J], work: Callable[[J], Result], workers: int, progress: bool, title: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Do the jobs.

    Interrupted, it lets the scans in flight be finished and kept; pre-empted, it ends the workers at once. Killed, it
    takes the workers with it, so that none of them is still writing when the same command runs again.

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
      Preempted: as it comes from the command's signals.
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
        if signals.asked():  # and some library took the exception for one of its own
            raise Preempted(f"Stopped by {signals.asked_by()}: run the same command again to go on from what is done.")

    with bar:
        if workers <= 1 or len(jobs) == 1:
            for job in jobs:
                take(job, work(job))
            return records, failed
        context = multiprocessing.get_context("spawn")
        # Nobody ever writes to this pipe: that its only writing end is closed is what the workers listen for.
        ours, theirs = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _begin, (ours,))
        try:
            futures: dict[Future[Result], J] = {pool.submit(work, j): j for j in jobs}
            for future in as_completed(futures):
                take(futures[future], future.result())
        except BrokenProcessPool:
            raise InputError(
                "A worker process was killed, most likely for want of memory: run the same command again "
                "with --workers=1; what is done is kept."
            ) from None
        except Preempted:
            theirs.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            theirs.close()
            ours.close()
    return records, failed


def _begin(parent: "Connection[None, None]") -> None:
    """In a worker: signals are the parent's to handle; its end, or its wish, is ours."""
    for number in (signal.SIGINT, *signals.SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: "Connection[None, None]") -> None:
    """Wait for the pipe's other end to close, however the parent came to it; whatever is half written stays beside."""
    parent.poll(None)
    os._exit(1)
