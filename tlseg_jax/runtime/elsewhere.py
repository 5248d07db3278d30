"""Folders that are kept in another place too: what is asked of that place, and of whom.

Everything works in local folders. Who starts a command may say, by `using`, that some of them stand for folders of
another place; those that lock, read and record folders then ask it. Where nobody has, the answers are those of
`Elsewhere`: there is no other place.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """No other place. Those that know one override this; processes that read data get it pickled."""

    def hold(
        self, folder: Path, *, part: str | None = None, keep_new: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        """Hold a folder there too: the body finds what is there, and what it writes gets there.

        Args:
          folder: which this process has locked here.
          part: hold only this part, such as one of the shards that fill the folder together; None: all of it.
          keep_new: whether files that are only here are kept where others have written there.

        Raises:
          InUse: somebody else holds it there.
          InputError: there is no way there.
        """
        del folder, part, keep_new
        return contextlib.nullcontext()

    def fetch(self, folder: Path, pattern: str | None = None) -> None:
        """Have here what is there of a folder that is to be read; nothing where this process holds it.

        Args:
          folder: the folder; where there is none, there may be none here either.
          pattern: fetch only the files of this name, such as "*/manifest.json"; None: all that is read as a file.

        Raises:
          InputError: there is no way there.
        """

    def name(self, folder: Path) -> str:
        """A folder as records and messages name it: the same on every machine, where it is kept in another place."""
        return str(folder)

    def find(self, name: str) -> Path:
        """The folder, to read from, that a record names. Raises InputError: there is no way to it."""
        return Path(name)

    def arrays(self, folder: Path) -> dict[str, Any]:
        """What tensorstore has to know of where a folder's array is read: "kvstore", and how often it is asked."""
        # Resolved: tensorstore takes no "..", as in --store=../store.
        return {"kvstore": {"driver": "file", "path": str(folder.resolve())}}

    def fault(self, folder: Path, error: Exception) -> str | None:
        """The sentence for tensorstore's error with a folder's arrays; None where the arrays are at fault."""
        del folder, error
        return None


_current = Elsewhere()


def current() -> Elsewhere:
    """What the command was started with."""
    return _current


@contextlib.contextmanager
def using(place: Elsewhere) -> Iterator[None]:
    """Have the body, in all of its threads, ask `place`."""
    global _current
    before, _current = _current, place
    try:
        yield
    finally:
        _current = before
