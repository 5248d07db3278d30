"""Who works in a folder of a bucket: an object with the owner's name, renewed while it lives.

A bucket has no locks that die with their holder. The object is written only where it is still the one that was
read (S3's If-Match and If-None-Match, GCS's generations), so that of two that want it one gets it; an owner that
has not renewed it for `LIFE` seconds, measured by the clock of whoever waits, is taken to be dead. An owner counts on
its lease for less (`MARGIN`), by its own clock: one that was suspended finds it invalid, and has to renew it first.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorstore as ts

from tlseg_jax.remote.address import Address
from tlseg_jax.remote.kv import explained
from tlseg_jax.runtime.errors import InUse
from tlseg_jax.runtime.messages import log

LEASE = ".lease"
"""Name of the object in the bucket, and of the local file with what this copy wrote there last."""

LIFE = 60.0
"""Seconds after which a lease that nobody renews is free."""

MARGIN = 0.25
"""Part of its life before the end of which an owner takes its lease to have run out."""

RENEW = 15.0
"""Seconds between renewals."""


def _now() -> float:
    """Seconds that also pass while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """The right to write to one folder of a bucket; a context manager."""

    def __init__(
        self,
        bucket: ts.KvStore,
        address: Address,
        copy: Path,
        lost: Callable[[], None],
        *,
        name: str = LEASE,
        life: float = LIFE,
        renew: float = RENEW,
    ) -> None:
        """Ask for nothing yet.

        Args:
          copy: the local copy, locked by this process: a lease that it wrote before is a dead process's.
          lost: called once, from another thread, where someone else took the lease.
          name: of the object, and of the local file.
          life: seconds.
          renew: seconds.
        """
        self._bucket, self._address, self._copy, self._on_lost = bucket, address, copy, lost
        self._name, self._life, self._renew = name, life, renew
        self._token = uuid.uuid4().hex
        self._generation, self._renewed = b"", 0.0
        self._end, self._writing = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self.lost = False
        self.marked = False
        """Whether every whole checkpoint of the folder is marked as such (`listing.WHOLE`)."""

    def __enter__(self) -> "Lease":
        """Take it.

        Raises:
          InputError: another process has it and is alive, or there is no way to the bucket.
        """
        with explained(self._address):
            found = self._bucket.read(self._name).result()
            self.marked = bool(_parse(found).get("marked"))
            if not self._is_free(found):
                found = self._wait_for_death(found)
            # On the disk first: were we to die between the two, no live owner would be taken for ours.
            (self._copy / self._name).write_text(self._token, encoding="utf-8")
            if not self._write(found.stamp.generation, self._owner()):
                raise self._in_use(self._bucket.read(self._name).result())
        self._end.clear()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    @property
    def valid(self) -> bool:
        """Whether nobody else can have taken it yet."""
        return not self.lost and _now() - self._renewed < (1 - MARGIN) * self._life

    def confirm(self) -> bool:
        """Renew it now: whether it still is ours. Raises ValueError: tensorstore's, no way to the bucket."""
        with self._writing:
            kept = not self.lost and (self._write(self._generation, self._owner()) or self._is_ours())
            told, self.lost = self.lost, not kept
        if not kept and not told:
            self._on_lost()
        return kept

    def __exit__(self, *_: object) -> None:
        """Give it back; where there is no way to the bucket it runs out by itself."""
        self._end.set()
        if self._thread:
            self._thread.join()
        if not self.lost:
            try:
                self._write(self._generation, {"owner": None, "marked": self.marked})
            except ValueError:
                log.warning(f"{self._address}: the lease could not be given back; it is free in {self._life:.0f} s.")

    def mark(self) -> None:
        """Put down that all checkpoints are marked. Raises ValueError: tensorstore's, no way to the bucket."""
        self.marked = True
        with self._writing:
            self._write(self._generation, self._owner())

    def _owner(self) -> dict[str, Any]:
        return {
            "owner": f"{socket.gethostname()}, process {os.getpid()}",
            "token": self._token,
            "renewed": time.time(),
            "marked": self.marked,
        }

    def _is_free(self, found: ts.KvStore.ReadResult) -> bool:
        held = _parse(found)
        # A dead process of this machine had it: we have the lock of its copy.
        local = self._copy / self._name
        mine = local.read_text(encoding="utf-8") if local.exists() else None
        return not held.get("owner") or held.get("token") == mine

    def _wait_for_death(self, found: ts.KvStore.ReadResult) -> ts.KvStore.ReadResult:
        """The lease once its owner has let it run out."""
        held = _parse(found)
        if time.time() - float(held.get("renewed", 0)) > 10 * self._life:  # no two clocks differ by that much
            return found
        log.info(
            f"{self._address} was last worked in by {held['owner']}: waiting up to {self._life:.0f} s to see whether "
            "that process is alive."
        )
        until = time.monotonic() + self._life
        while time.monotonic() < until:
            time.sleep(min(1.0, self._life / 10))
            now = self._bucket.read(self._name).result()
            if now.stamp.generation == found.stamp.generation:
                continue
            if _parse(now).get("owner"):
                raise self._in_use(now)
            return now
        return found

    def _in_use(self, found: ts.KvStore.ReadResult) -> InUse:
        return InUse(
            f"{self._address} is in use by {_parse(found).get('owner') or 'another process'}: wait for it, or choose "
            f"another address; had that process died, the folder would be free {self._life:.0f} s later."
        )

    def _write(self, generation: bytes, value: dict[str, Any]) -> bool:
        """Write the object where it is still of this generation."""
        began = _now()
        stamp = self._bucket.write(self._name, json.dumps(value).encode(), if_equal=generation).result()
        if not stamp.generation:
            return False
        self._generation, self._renewed = stamp.generation, began
        return True

    def _keep(self) -> None:
        while not self._end.wait(self._renew):
            with contextlib.suppress(ValueError):  # the network is away: another attempt follows; uploading says so
                if not self.confirm():
                    return

    def _is_ours(self) -> bool:
        """Whether a renewal whose answer got lost had arrived, or somebody deleted the object and took nothing."""
        found = self._bucket.read(self._name).result()
        if found.state == "value" and _parse(found).get("token") != self._token:
            return False
        if found.state != "value":  # a bucket that is gone reads the same, but cannot be listed
            self._bucket.list(ts.KvStore.KeyRange(self._name, f"{self._name}\0")).result()
        return self._write(found.stamp.generation, self._owner())


def _parse(found: ts.KvStore.ReadResult) -> dict[str, Any]:
    if found.state != "value":
        return {}
    try:
        value = json.loads(found.value)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_lease(bucket: ts.KvStore) -> dict[str, Any]:
    """What a folder's lease says; empty where there is none. Raises ValueError: no way to the bucket."""
    return _parse(bucket.read(LEASE).result())
