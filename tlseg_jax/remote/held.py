"""Working in a folder of a bucket: in a local copy that is brought here first and brought back meanwhile.

Whoever locks a folder holds it in the bucket as well (`held`); `bring` is for those that only read. A folder that is
nobody's copy passes through both unchanged.
"""

import contextlib
import dataclasses
import fcntl
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tlseg_jax.remote.address import Address, address_of
from tlseg_jax.remote.kv import explain, explained, open_bucket
from tlseg_jax.remote.lease import LEASE, LIFE, RENEW, Lease, read_lease
from tlseg_jax.remote.listing import remote_files
from tlseg_jax.remote.mirror import Mirror
from tlseg_jax.runtime import signals
from tlseg_jax.runtime.errors import InputError, Preempted

LOOK = 2.0
"""Seconds between looks for changed files, at least; more where looking and sending takes long."""

_held: set[Path] = set()
"""Local copies that this process holds, as the operating system keeps its locks: what is below them is held too."""


@contextlib.contextmanager
def held(folder: Path, *, part: str | None = None, keep_new: bool = False) -> Iterator[None]:
    """Hold a folder's place in its bucket: fetched first, sent as it changes, and sent in full at the end.

    Args:
      folder: a folder that this process has locked; where it is no copy, nothing happens.
      part: hold only this part, such as one of the shards that fill the folder together; None: all of it.
      keep_new: see `Mirror`.

    Raises:
      InputError: someone else works there, took it over, or there is no way to the bucket.
      Preempted: this process was asked to stop meanwhile.
    """
    folder = folder.absolute()
    address = address_of(folder)
    if address is None or is_held(folder):
        yield
        return
    bucket = open_bucket(address)
    name = f".shards/{part}.lease" if part else LEASE
    lease = Lease(bucket, address, folder, _interrupt, name=name, life=LIFE, renew=RENEW)
    try:
        with lease:
            with _turn(folder), explained(address):
                mirror = Mirror(folder, bucket, keep_new=keep_new, confirm=lease.confirm)
                marked = lease.marked or part is not None or _is_marked(address)
                mirror.pull(marked)
                if not lease.marked:
                    if not marked:
                        mirror.mark()
                    lease.mark()
            with _sending(mirror, address, lease):
                _held.add(folder)
                try:
                    yield
                finally:
                    _held.discard(folder)
    finally:
        if lease.lost:
            raise InputError(
                f"{address} was taken over by another process, since this one could not renew its lease in time: what "
                "it did since was not sent; run the same command again to go on from what is there."
            ) from None


def bring(folder: Path) -> None:
    """Fetch what a bucket holds of a folder, to read it; nothing where it is no copy or somebody works in it here.

    Raises:
      InputError: there is no way to the bucket.
    """
    folder = folder.absolute()
    address = address_of(folder)
    if address is None or is_held(folder):
        return
    with explained(address):
        bucket, marked = open_bucket(address), _is_marked(address)
        if not folder.is_dir():
            if not remote_files(bucket, marked):
                return
            folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder), (folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # what is here is newer than what is there
            Mirror(folder, bucket).pull(marked)


def is_held(folder: Path) -> bool:
    """Whether this process holds a folder, or one that it is in."""
    folder = folder.absolute()
    return any(p in _held for p in (folder, *folder.parents))


@contextlib.contextmanager
def _sending(mirror: Mirror, address: Address, lease: Lease) -> Iterator[None]:
    """Send what changes while the body runs, from a thread, and all of it at the end."""
    end, error = threading.Event(), None
    thread = threading.Thread(target=_send_changes, args=(mirror, lease, end), name="upload", daemon=True)
    thread.start()
    try:
        yield
    except BaseException as e:
        error = e
        raise
    finally:
        with signals.waiting():  # who is asked to stop still has the time for this
            end.set()
            thread.join()
            _send_all(mirror, address, lease, error)


def _send_changes(mirror: Mirror, lease: Lease, end: threading.Event) -> None:
    took = 0.0
    while not end.wait(max(LOOK, 10 * took)):
        began = time.monotonic()
        # Where the network is away for long the last attempt says so; training goes on meanwhile.
        with contextlib.suppress(ValueError, OSError):
            mirror.push(lambda: lease.valid and not end.is_set())
        took = time.monotonic() - began


def _send_all(mirror: Mirror, address: Address, lease: Lease, error: BaseException | None) -> None:
    """Send what is left, after a body that ended with `error`. Raises InputError or Preempted: it cannot be sent."""

    def ours() -> bool:
        return lease.valid or lease.confirm()

    try:
        if not lease.lost and ours():
            mirror.push(ours)
    except (ValueError, OSError) as e:
        fault = f"The last results are in {mirror.folder} and not all in the bucket. {explain(address, e)}"
        if isinstance(error, Preempted):
            raise Preempted(f"{error} {fault}") from None
        if error is None or isinstance(error, KeyboardInterrupt):
            raise InputError(fault) from None
        # What ended the body is what the user has to know first; the next call sends the rest.


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One process after another fetches into a copy."""
    with (folder / ".turn").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _interrupt() -> None:
    """End what the main thread does, as Ctrl-C would, even where it waits."""
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)


def _is_marked(address: Address) -> bool:
    """Whether we have written the folder, or one that it is part of, as a cell is of a sweep."""
    parts = address.path.split("/")
    at_or_above = (dataclasses.replace(address, path="/".join(parts[:i])) for i in range(len(parts), 0, -1))
    return any(read_lease(open_bucket(a)).get("marked") is True for a in at_or_above)
