"""Many scans at once: jobs over a pool of processes, each with a result or the reason why there is none."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from tlseg_jax.runtime import signals
from tlseg_jax.runtime.errors import Preempted


class Job(Protocol):
    """A job for one subject."""

    @property
    def files(self) -> Any:
        """The subject's files: `subject`, its unique name, and `image`, the scan."""


J = TypeVar("J", bound=Job)
Result = dict[str, Any] | str
"""A subject's record, or one sentence that says why it is excluded."""


def run_jobs(
    jobs: Sequence[J],
    work: Callable[[J], Result],
    workers: int,
    progress: bool,
    title: str,
    lost: Callable[[J, str], str] = lambda job, reason: reason,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Do the jobs.

    Interrupted, it lets the scans in flight be finished and kept; pre-empted, it ends the workers at once. Killed, it
    takes the workers with it, so that none of them is still writing when the same command runs again. Where a worker is
    killed, the scans that were in flight are tried again one at a time, with the memory for themselves: the one whose
    worker is killed again is left out, and the others go on.

    Args:
      jobs: one a subject.
      work: what to do; a function of a module, as it goes to other processes.
      workers: processes; 1 stays in this one.
      lost: told of a job whose worker was killed, and why it failed; gives the reason back.

    Returns:
      Subject -> record, and subject -> reason for those that failed.

    Raises:
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
        waiting = list(jobs)
        while waiting:
            for suspect in _in_pool(waiting, work, min(workers, len(waiting)), take):
                alone = [suspect]
                if _in_pool(alone, work, 1, take):
                    take(suspect, lost(suspect, _LOST.format(suspect.files.image)))
    return records, failed


_LOST = (
    "{} ended the process that prepared it, twice, most likely for want of memory: free some, or resample the scan to "
    "fewer voxels, and run the same command again."
)


def _in_pool(waiting: list[J], work: Callable[[J], Result], workers: int, take: Callable[[J, Result], None]) -> list[J]:
    """Do jobs in worker processes until none is waiting or a worker is killed.

    Args:
      waiting: the jobs; each is taken out as it begins.
      take: given each job's result.

    Returns:
      The jobs that were in flight when a worker was killed, whichever of them it was at; none where none was.
    """
    context = multiprocessing.get_context("spawn")
    # Nobody ever writes to this pipe: that its only writing end is closed is what the workers listen for.
    ours, theirs = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (ours,))
    futures: dict[Future[Result], J] = {}
    suspects: list[J] = []
    whole = True
    try:
        while (waiting and whole) or futures:
            # No more than there are workers: what a pool holds ready counts as begun, and would be suspected with them.
            while waiting and whole and len(futures) < workers:
                job = waiting.pop(0)
                try:
                    futures[pool.submit(work, job)] = job
                except BrokenProcessPool:
                    waiting.insert(0, job)  # it never began
                    whole = False
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                job = futures.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    suspects.append(job)
                    whole = False
                else:
                    take(job, result)
    except Preempted:
        theirs.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        theirs.close()
        ours.close()
    return suspects


def _begin(parent: "Connection[None, None]") -> None:
    """In a worker: signals are the parent's to handle; its end, or its wish, is ours."""
    for number in (signal.SIGINT, *signals.SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: "Connection[None, None]") -> None:
    """Wait for the pipe's other end to close, however the parent came to it; whatever is half written stays beside."""
    parent.poll(None)
    os._exit(1)
