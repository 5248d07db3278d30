"""The manifests of the data sets beside the one that is being prepared: data sets of one group share their split."""

import re
from pathlib import Path

from tlseg_jax.remote.address import address_of
from tlseg_jax.remote.kv import explained, open_bucket
from tlseg_jax.runtime.files import replacing

_MANIFEST = re.compile(r"[^./][^/]*/manifest\.json")


def bring_manifests(root: Path, but: str) -> None:
    """Fetch the manifest of each data set of a store's copy, and nothing of its arrays; elsewhere do nothing.

    Args:
      root: the folder of the data sets.
      but: the data set that this process holds, whose files are here.

    Raises:
      InputError: there is no way to the bucket.
    """
    address = address_of(root)
    if address is None:
        return
    with explained(address):
        bucket = open_bucket(address)
        names = [n for key in bucket.list().result() if _MANIFEST.fullmatch(n := key.decode())]
        reads = [(n, bucket.read(n)) for n in names if n != f"{but}/manifest.json"]
        for name, read in reads:
            found = read.result()
            if found.state == "value":
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path, "wb") as f:
                    f.write(found.value)
