"""A folder in a bucket to read from, with the few things that a prepared data set needs of a path."""

import dataclasses
from pathlib import Path
from typing import Any

import tensorstore as ts

from tlseg_jax.remote.address import Address, address_of, parse_address
from tlseg_jax.remote.kv import check_reachable, explained, kvstore_spec, open_bucket
from tlseg_jax.runtime.files import local_folder


@dataclasses.dataclass(frozen=True)
class RemoteFolder:
    """A folder or a file in a bucket.

    Attributes:
      address: where.
    """

    address: Address

    def __str__(self) -> str:
        """Its address."""
        return str(self.address)

    def __truediv__(self, name: str) -> "RemoteFolder":
        """What is below it."""
        return RemoteFolder(self.address / name)

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.address.path.rpartition("/")[2] or self.address.bucket

    @property
    def parent(self) -> "RemoteFolder":
        """The folder that it is in."""
        return RemoteFolder(dataclasses.replace(self.address, path=self.address.path.rpartition("/")[0]))

    def kvstore(self, name: str) -> dict[str, Any]:
        """tensorstore's description of a folder below it."""
        return kvstore_spec(self.address / name)

    def read_text(self, encoding: str = "utf-8") -> str:
        """What the file holds.

        Raises:
          FileNotFoundError: there is none.
          InputError: there is no way to it.
        """
        with explained(self.address):
            found = open_bucket(self.parent.address).read(self.name).result()
        if found.state != "value":
            raise FileNotFoundError(str(self))
        return found.value.decode(encoding)

    def exists(self) -> bool:
        """Whether there is a file of this name. Raises InputError: there is no way to it."""
        key = self.name
        with explained(self.address):
            found = open_bucket(self.parent.address).list(ts.KvStore.KeyRange(key, f"{key}\0")).result()
        return bool(found)


Folder = Path | RemoteFolder
"""Where a prepared data set may be read from."""


def open_folder(text: str) -> Folder:
    """The folder that a flag names, to read from.

    Raises:
      InputError: it is an address or a path that is not usable, of a bucket that is not there or may not be read.
    """
    address = parse_address(text)
    if address is None:
        return local_folder(text)
    check_reachable(address)
    return RemoteFolder(address)


def recorded(folder: Folder) -> str:
    """A folder as a record names it, for `open_folder`: in a bucket, or the copy of one, by its address."""
    if isinstance(folder, RemoteFolder):
        return str(folder)
    return str(address_of(folder) or folder.resolve())
