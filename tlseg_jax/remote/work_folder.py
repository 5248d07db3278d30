"""The folder that a flag names, to work in: itself, or the local copy of one in a bucket."""

from collections.abc import Callable
from pathlib import Path

from tlseg_jax.remote.address import copy_of, parse_address
from tlseg_jax.remote.held import bring
from tlseg_jax.remote.kv import check_reachable
from tlseg_jax.runtime.files import local_folder


def work_folder(text: str, *, fetch: str | None = None, say: Callable[[str], None] = print) -> Path:
    """The local folder to work in for a path or an address.

    Of an address, each folder is fetched from the bucket when it is locked or read (`remote.held`), and what
    changes in a locked one is sent there.

    Args:
      text: a local path, s3://BUCKET/PATH or gs://BUCKET/PATH.
      fetch: what is to be read without a lock, relative to the folder and fetched now: "" for all; None: nothing.
      say: prints a line.

    Raises:
      InputError: the address or the path is not usable, or there is no way to the bucket.
    """
    address = parse_address(text)
    if address is None:
        return local_folder(text)
    check_reachable(address)
    folder = copy_of(address)
    say(f"{address}: worked in at {folder}, and kept up to date in the bucket.")
    if fetch is not None:
        bring(folder / fetch if fetch else folder)
    return folder
