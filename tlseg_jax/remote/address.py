"""Addresses of folders in a bucket, and where this machine keeps its copies of them.

    s3://BUCKET/PATH    Amazon S3, or any server that speaks its protocol (AWS_ENDPOINT_URL)
    gs://BUCKET/PATH    Google Cloud Storage

A copy of s3://BUCKET/runs is in CACHE/remote/s3/BUCKET/runs, CACHE being tlseg_jax's folder of the user's caches
(XDG_CACHE_HOME, else ~/.cache), so that a local path tells its address and a run within a copy is one too. What is only
read is in CACHE/remote/read/s3/BUCKET/runs, where copies hold next to nothing.
"""

import dataclasses
import os
import re
import urllib.parse
from pathlib import Path

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import cache_folder

SCHEMES = ("s3", "gs")

READ = "read"
"""Folder of the copies that are only read."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclasses.dataclass(frozen=True)
class Address:
    """A folder, or a file, in a bucket.

    Attributes:
      scheme: "s3" or "gs".
      bucket: the bucket's name.
      path: within the bucket, with no slash at either end; empty for the whole bucket.
    """

    scheme: str
    bucket: str
    path: str

    def __str__(self) -> str:
        """As the user writes it."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")


def parse_address(text: str) -> Address | None:
    """The address that a flag's value is; None where it is a local path.

    Raises:
      InputError: it is an address that is not usable; one with a password in it is not repeated.
    """
    found = _SCHEME.match(text)
    if not found:
        return None
    rest = text[found.end() :]
    if "@" in rest.split("/", maxsplit=1)[0]:
        raise InputError(
            "An address with a user or a password in it is refused: leave them out and set the environment's "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS."
        )
    if "?" in rest or "#" in rest:  # a signed link has its key there
        raise InputError("An address with '?' or '#' in it is refused: give s3://BUCKET/PATH or gs://BUCKET/PATH.")
    if found[1] not in SCHEMES:
        raise InputError(f"{text} cannot be used: give s3://BUCKET/PATH, gs://BUCKET/PATH or a folder.")
    bucket, _, path = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{text} names no bucket: give it as {found[1]}://BUCKET/PATH.")
    parts = [p for p in path.split("/") if p]
    if any(p.startswith(".") or not p.isprintable() or "\\" in p for p in parts):
        raise InputError(f"{text!r} is not usable: no part of an address may start with '.' or hold a '\\'.")
    return Address(found[1], bucket, "/".join(parts))


def endpoint() -> str | None:
    """The server that s3:// addresses are at; None for Amazon's own.

    Raises:
      InputError: it is not a plain http or https address; one with a password in it is not repeated.
    """
    text = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not text:
        return None
    parts = urllib.parse.urlsplit(text)
    if "@" in parts.netloc:
        raise InputError("AWS_ENDPOINT_URL has a user or a password in it: leave them out.")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise InputError(f"AWS_ENDPOINT_URL={text} is not usable: give it as http://HOST:PORT or https://HOST.")
    return text.rstrip("/")


def copies_folder() -> Path:
    """Where this machine keeps its copies of folders in buckets. Raises RuntimeError: the user has no home folder."""
    return cache_folder() / "remote"


def copy_of(address: Address, read: bool = False) -> Path:
    """Where this machine's copy of a folder is: to work in, or to read from."""
    return copies_folder() / (READ if read else "") / _service(address.scheme) / address.bucket / address.path


def address_of(path: Path) -> Address | None:
    """The address that a local path is a copy of; None where it is nobody's copy."""
    parts = _below_copies(path)
    parts = parts[1:] if parts[:1] == (READ,) else parts
    if len(parts) < 2 or parts[0] not in {_service(s) for s in SCHEMES}:
        return None
    return Address(parts[0].partition("@")[0], parts[1], "/".join(parts[2:]))


def address_to_read(path: Path) -> Address | None:
    """As `address_of`, of a copy that is only read; None also where it is one to work in."""
    return address_of(path) if _below_copies(path)[:1] == (READ,) else None


def _below_copies(path: Path) -> tuple[str, ...]:
    try:
        return Path(os.path.abspath(path)).relative_to(copies_folder()).parts  # noqa: PTH100 - links stay as named
    except (ValueError, RuntimeError):
        return ()


def _service(scheme: str) -> str:
    """The folder of one server's copies: another server's bucket of the same name is another bucket."""
    server = endpoint() if scheme == "s3" else None
    return scheme if server is None else f"{scheme}@{urllib.parse.urlsplit(server).netloc.replace(':', '_')}"
