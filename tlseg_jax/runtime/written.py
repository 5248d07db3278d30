"""What we have written into a folder, so that what others put there is neither replaced nor deleted.

    FOLDER/tlseg_jax-files.json    file -> SHA-256 of what was written there, newest first, and what is known of it

A file that is not listed, or that is there with another checksum, is somebody else's: a map drawn by hand, or one of
ours that was corrected since. A checksum is put down before its file takes its name, so that a stop between the two
leaves nothing of ours that counts as another's.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import flush, write_json

RECORD = "tlseg_jax-files.json"

_BESIDE = ".tlseg_jax-new"


class Written:
    """The list of what we wrote into one folder; several processes may write into it at a time."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet; the folder may be missing."""
        self.folder = folder

    def files(self) -> dict[str, dict[str, Any]]:
        """File, relative to the folder -> "sha256", a list, and what else was put down of it.

        Raises:
          InputError: the list is damaged, or a file of the same name is no such list.
        """
        path = self.folder / RECORD
        try:
            files = json.loads(path.read_text(encoding="utf-8"))["files"]
            if all(isinstance(f["sha256"], list) for f in files.values()):
                return files  # type: ignore[no-any-return]
            fault = "it is no such list"
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            fault = str(e) or type(e).__name__
        raise InputError(
            f"{path}, the list of what was written there, cannot be read ({fault}): move it away; the files in that "
            "folder then count as somebody else's."
        )

    def others(self, names: Iterable[str]) -> list[str]:
        """Those of these files that are there and that we did not write, or that were changed since."""
        files = self.files()
        there = [n for n in names if os.path.lexists(self.folder / n)]
        return [n for n in there if self._now(n) not in files.get(n, {"sha256": ()})["sha256"]]

    def add(self, digests: Mapping[str, str], **known: Any) -> None:
        """Put down the checksums of files that are about to take their names; `known` is JSON."""
        with self._changing() as files:
            for name, digest in digests.items():
                now, before = self._now(name), files.get(name, {"sha256": ()})["sha256"]
                files[name] = {"sha256": [digest, *({now} & set(before) - {digest})], **known}

    def forget(self, names: Iterable[str]) -> None:
        """Take files off the list."""
        with self._changing() as files:
            for name in names:
                files.pop(name, None)

    def _now(self, name: str) -> str | None:
        try:
            return file_digest(self.folder / name)
        except OSError:  # missing, a folder, or not ours to read
            return None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems lock no folders
                fcntl.flock(handle, fcntl.LOCK_EX)
            files = self.files()
            yield files
            write_json(self.folder / RECORD, {"files": dict(sorted(files.items()))})
        finally:
            os.close(handle)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@contextlib.contextmanager
def publishing(folder: Path, last: str) -> Iterator[Path]:
    """A folder to fill, whose files then take their places in `folder`, which this process holds.

    What an earlier call put there and this one did not make goes.

    Args:
      folder: exists.
      last: the file that takes its place after all others.

    Raises:
      InputError: a file that would be replaced is not what an earlier call wrote; nothing is changed then.
    """
    beside, written = folder / _BESIDE, Written(folder)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        made = {p.relative_to(beside).as_posix(): file_digest(p) for p in beside.rglob("*") if p.is_file()}
        theirs = written.others(made)
        if theirs:
            raise InputError(
                f"{folder / theirs[0]} was not written by this command, or was changed since, and would be replaced"
                f"{f' (and {len(theirs) - 1} more)' if theirs[1:] else ''}: move it away, or choose another folder."
            )
        earlier = [n for n in written.files() if n not in made]
        gone = sorted(set(earlier) - set(written.others(earlier)))
        written.add(made)
        for name in sorted(made, key=lambda n: (n == last, n)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            flush(beside / name)
            (beside / name).replace(folder / name)
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        written.forget(earlier)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
