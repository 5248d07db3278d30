"""Where commands enter: the addresses among their flags become local folders, which `Buckets` keeps up to date.

A folder to work in is a copy: what is there is fetched when it is locked or read, and what changes in a locked one is
sent (`held`). Of prepared data to read from only the manifests are copied; arrays are read from the bucket.
"""

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any

from tlseg_jax.remote.address import address_of, address_to_read, copy_of, parse_address
from tlseg_jax.remote.held import bring, held, is_held
from tlseg_jax.remote.kv import check_reachable, explain, explained, is_damage, kvstore_spec, open_bucket
from tlseg_jax.remote.listing import counts
from tlseg_jax.runtime.elsewhere import Elsewhere
from tlseg_jax.runtime.files import local_folder, replacing
from tlseg_jax.runtime.messages import log


def work_folder(text: str, fetch: str | None = None) -> Path:
    """The local folder to work in for a path or an address, which is told.

    Args:
      text: a local path, s3://BUCKET/PATH or gs://BUCKET/PATH.
      fetch: what is to be read without a lock, relative to the folder and fetched now: "" for all; None: nothing.

    Raises:
      InputError: the address or the path is not usable, or there is no way to the bucket.
    """
    address = parse_address(text)
    if address is None:
        return local_folder(text)
    check_reachable(address)
    folder = copy_of(address)
    log.info(f"{address}: worked in at {folder}, and kept up to date in the bucket.")
    if fetch is not None:
        bring(folder / fetch if fetch else folder)
    return folder


def read_folder(text: str) -> Path:
    """The local folder that stands for a path or an address, to read prepared data from.

    Raises:
      InputError: it is an address or a path that is not usable, of a bucket that is not there or may not be read.
    """
    address = parse_address(text)
    if address is None:
        return local_folder(text)
    check_reachable(address)
    return copy_of(address, read=True)


@dataclasses.dataclass(frozen=True)
class Buckets(Elsewhere):
    """Copies of folders in buckets, told by where they are; other folders pass through unchanged."""

    def hold(
        self, folder: Path, *, part: str | None = None, keep_new: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        return held(folder, part=part, keep_new=keep_new)

    def fetch(self, folder: Path, pattern: str | None = None) -> None:
        if pattern is None and not address_to_read(folder):
            bring(folder)
        else:
            _fetch_files(folder, pattern or "manifest.json")

    def name(self, folder: Path) -> str:
        return str(address_of(folder) or folder)

    def find(self, name: str) -> Path:
        return read_folder(name)

    def arrays(self, folder: Path) -> dict[str, Any]:
        address = address_to_read(folder)
        if address is None:
            return super().arrays(folder)
        # Asked once: whether a chunk has changed since would be a request a patch.
        return {"kvstore": kvstore_spec(address), "recheck_cached_data": "open", "recheck_cached_metadata": "open"}

    def fault(self, folder: Path, error: Exception) -> str | None:
        address = address_to_read(folder)
        return explain(address, error) if address and not is_damage(error) else None


def _fetch_files(folder: Path, pattern: str) -> None:
    """Replace by the bucket's the files that a pattern names, but in what this process holds."""
    address = address_of(folder)
    if address is None:
        return
    with explained(address):
        bucket, names = open_bucket(address), [pattern]
        if "*" in pattern:
            wanted = re.compile(re.escape(pattern).replace(r"\*", "[^/]+"))
            keys = [key.decode(errors="replace") for key in bucket.list().result()]
            names = [n for n in keys if wanted.fullmatch(n) and counts(n)]
        reads = [(folder / n, bucket.read(n)) for n in names if not is_held(folder / n)]
        for path, read in reads:
            found = read.result()
            if found.state != "value":
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, "wb") as f:
                f.write(found.value)
