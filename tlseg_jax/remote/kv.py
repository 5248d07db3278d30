"""Buckets by way of tensorstore's key-value stores, and what went wrong with one in a sentence.

Who we are is read by tensorstore itself from the environment and the usual files; nothing of it passes here, so
that nothing of it can be printed or written.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorstore as ts

from tlseg_jax.remote.address import Address, endpoint
from tlseg_jax.runtime.errors import InputError

REGION = "us-east-1"
"""Of a server of one's own where AWS_REGION says nothing: such servers have no regions."""

PATIENCE = 10
"""Attempts at a request while work is under way: about a minute and a half of a network that is away."""

REFUSED = (
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "http_response_code='403'",
    "http_response_code='401'",
)
"""What servers' errors say where we may not do what we asked for."""

FEW = 3
"""Attempts at the first request: whoever mistyped an address is told within seconds."""


def kvstore_spec(address: Address, attempts: int | None = None) -> dict[str, Any]:
    """tensorstore's description of a folder in a bucket."""
    spec: dict[str, Any] = {"bucket": address.bucket, "path": f"{address.path}/" if address.path else ""}
    retries = {"max_retries": attempts or PATIENCE, "initial_delay": "500ms", "max_delay": "16s"}
    if address.scheme == "gs":
        return spec | {"driver": "gcs", "context": {"gcs_request_retries": retries}}
    spec |= {"driver": "s3", "context": {"s3_request_retries": retries}}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    server = endpoint()
    if server:
        spec |= {"endpoint": server, "aws_region": region or REGION}
    elif region:
        spec |= {"aws_region": region}
    if os.environ.get("AWS_ACCESS_KEY_ID"):  # else the library looks for files and complains of each that is not there
        spec |= {"aws_credentials": {"type": "environment"}}
    return spec


def open_bucket(address: Address, attempts: int | None = None) -> ts.KvStore:
    """A folder in a bucket; keys are relative to it. Nothing is asked of the server yet.

    Raises:
      InputError: it cannot be opened.
    """
    with explained(address):
        return ts.KvStore.open(kvstore_spec(address, attempts)).result()


def check_reachable(address: Address) -> None:
    """Ask the server for next to nothing, so that a wrong address is told before any work.

    Raises:
      InputError: there is no such bucket, we may not read it, or there is no way to it.
    """
    with explained(address):
        open_bucket(address, FEW).list(ts.KvStore.KeyRange(".lease", ".lease0")).result()


@contextlib.contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn tensorstore's errors in the body into one sentence about `address`.

    Raises:
      InputError: in place of the ValueError.
    """
    try:
        yield
    except ValueError as e:
        raise InputError(explain(address, e)) from None


def explain(address: Address, error: Exception) -> str:
    """One sentence for an error of tensorstore's on a bucket."""
    text = (str(error).splitlines() or [""])[0]
    bucket = f"{address.scheme}://{address.bucket}"
    keys = "AWS_ACCESS_KEY_ID, AWS_PROFILE" if address.scheme == "s3" else "GOOGLE_APPLICATION_CREDENTIALS"
    if "NoSuchBucket" in text or ("NOT_FOUND" in text and "bucket" in text.lower()):
        return f"There is no bucket {bucket}: check the address, or make the bucket first."
    if any(w in text for w in REFUSED):
        return f"{address} is not open to these credentials: check them ({keys}) and the bucket's rules."
    if "credentials" in text.split(" [")[0]:  # after that comes what we had asked for
        return f"{address} needs credentials and none were found: set {keys}, or log in."
    server = endpoint() if address.scheme == "s3" else None
    if any(w in text for w in ("CURL", "retry attempts failed", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED")):
        where = f" at {server}" if server else ""
        return (
            f"{address} cannot be reached{where} ({_fault(text)}): check the network and the address, and run the same "
            "command again."
        )
    return f"{address} cannot be used ({_fault(text)}): check the address and run the same command again."


def is_damage(error: Exception) -> bool:
    """Whether the server answered, and what it gave is missing or not what was written."""
    text = str(error)
    return (
        "NoSuchBucket" not in text
        and any(
            w in text
            for w in ("NOT_FOUND", "missing", "DATA_LOSS", "CRC-32C", "checksum", "FAILED_PRECONDITION", "zarr")
        )
        and not any(w in text for w in (*REFUSED, "CURL", "retry attempts failed"))
    )


def _fault(text: str) -> str:
    """The words of an error without the server's answer: it repeats request headers, and a signature is among them."""
    return text.split(" [")[0][:160]
