"""A data set prepared by several jobs at once: who takes which scans, and who merges.

Every shard locks its own part and holds the store's lock together with the others; whoever can hold that lock alone
afterwards merges. The operating system frees the locks of a process however it ends.
"""

import contextlib
import dataclasses
import fcntl
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.store.records import outcome
from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.errors import InputError, InUse
from tlseg_jax.runtime.files import making

T = TypeVar("T")

_LOCKS = ".shards"
"""Folder of a data set's folder with the shards' lock files."""


MERGE_SECONDS = 3600.0
"""How long a shard waits for one of another machine that merges at the same time."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part of the scans of a data set.

    Attributes:
      index: which part, from 0.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            most = self.count - 1
            hint = f": shards count from 0, so use 0/{self.count} to {most}/{self.count}" if self.count >= 1 else ""
            raise InputError(f"`shard={self}` is not one of {self.count} shards{hint}.")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[T]) -> tuple[T, ...]:
        """Every `count`-th of the items, from the `index`-th on: the same share of small and large ones."""
        return tuple(items[self.index :: self.count])


def parse_shard(text: str) -> Shard:
    """The shard that "i/n" names.

    Raises:
      InputError: it is not of that form, or i is not from 0 to n - 1.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if not match:
        raise InputError(f"`shard={text}` cannot be read: give it as i/n, from 0/n to n-1/n, as in 0/4 and 3/4.")
    return Shard(int(match[1]), int(match[2]))


@contextlib.contextmanager
def at_work(folder: Path, shard: Shard, first: Callable[[], None]) -> Iterator[None]:
    """Hold a shard of a data set for this process; other shards of as many parts may be at work beside it.

    Args:
      folder: the data set's folder; made if it is not there.
      first: called when the locks are held, in one process at a time.

    Raises:
      InputError: another process prepares this shard, all of it, or another number of parts; or the folder cannot be
        made.
    """
    with making(folder, "store"):
        (folder / _LOCKS).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as locks:
        with _turn(folder):
            if not _hold(locks, folder / ".lock", fcntl.LOCK_SH):
                raise InputError(
                    f"The folder {folder} is in use by another process, which prepares all of it: wait for it, or "
                    "choose another `store`."
                )
            _hold(locks, folder / _LOCKS / f"of-{shard.count}.lock", fcntl.LOCK_SH)
            for path in sorted((folder / _LOCKS).glob("of-*.lock")):
                others = path.name.removeprefix("of-").removesuffix(".lock")
                with contextlib.ExitStack() as looked:
                    if others != str(shard.count) and not _hold(looked, path, fcntl.LOCK_EX):
                        raise InputError(
                            f"The folder {folder} is being prepared in {others} shards, not {shard.count}: wait for "
                            f"them, or give `shard=i/{others}`."
                        )
            if not _hold(locks, folder / _LOCKS / f"{shard.index}-of-{shard.count}.lock", fcntl.LOCK_EX):
                raise InputError(f"Shard {shard} of {folder} is being prepared by another process: wait for it.")
            part = f"{shard.index}-of-{shard.count}"
            locks.enter_context(elsewhere.current().hold(folder, part=part, keep_new=True))
            first()
        yield


@contextlib.contextmanager
def merging(folder: Path) -> Iterator[bool]:
    """Hold the whole store, once this process's own shard is done and let go: whether it could.

    Where it could not, others are at work, and each of them tries in its turn: the last of them finds what all have
    written. A shard that begins meanwhile waits.
    """
    with _turn(folder), contextlib.ExitStack() as locks:
        alone = _hold(locks, folder / ".lock", fcntl.LOCK_EX)
        if alone:
            _hold_elsewhere(locks, folder)
        yield alone


def _hold_elsewhere(locks: contextlib.ExitStack, folder: Path) -> None:
    """Have here what the shards of other machines have written, where the store is kept in another place too.

    A shard of another machine that merges at the same time may not have found ours, so it is waited for.
    """
    until = time.monotonic() + MERGE_SECONDS
    while True:
        try:
            locks.enter_context(elsewhere.current().hold(folder, keep_new=True))
        except InUse:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
        else:
            return


def collect(
    scans: Sequence[ScanFiles],
    folder: Path,
    fingerprint: Callable[[Mapping[str, str]], str],
    origin: Callable[[ScanFiles], dict[str, Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, str], tuple[str, ...]]:
    """What all shards have written.

    Args:
      fingerprint: from a scan's checksums, under the settings of now.
      origin: what a record says of whose scan it is and where its files are.

    Returns:
      Subject -> record; subject -> reason why it is excluded; the subjects that are still out.
    """
    records, failed, out = {}, {}, []
    for files in scans:
        kept = outcome(folder, files, fingerprint)
        if kept is None:
            out.append(files.subject)
        elif isinstance(kept, str):
            failed[files.subject] = kept
        else:
            records[files.subject] = kept | origin(files)
    return records, failed, tuple(out)


def left_out(name: str, out: int, scans: int) -> str:
    """Why there is no manifest yet, for a user."""
    still = f"{out} of {scans} scans are still out" if out else "other shards are still at work"
    return f"{name}: not merged yet, {still}: the last shard merges, and so does 'prepare' without `shard`."


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """For the moments of beginning and merging: one process after the other."""
    with contextlib.ExitStack() as locks:
        _hold(locks, folder / _LOCKS / "turn.lock", fcntl.LOCK_EX, wait=True)
        yield


def _hold(locks: contextlib.ExitStack, path: Path, kind: int, wait: bool = False) -> bool:
    """Lock a file until `locks` closes; whether that could be done."""
    file: IO[str] = locks.enter_context(path.open("a+"))  # to read as well: a shared lock over NFS needs that
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
