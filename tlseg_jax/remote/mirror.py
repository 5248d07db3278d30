"""A local copy of a folder in a bucket: brought here, and brought back as it changes.

The bucket has the last word: where someone else has written there since we last looked, their files replace ours. An
object is written and deleted only where it still is what we know of it, so that what was on its way while this process
was suspended, and lost its lease, replaces nothing of the new owner's.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorstore as ts

from tlseg_jax.remote.listing import WHOLE, Stamp, check_name, local_files, marker, remote_files, stamp_of, step_of
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing, write_json

STATE = ".remote.json"
"""Local file: what is known of the objects in the bucket, so that what has not changed is not fetched again."""

MISSING = ts.KvStore.open({"driver": "memory"}).result().read("none").result().stamp.generation
"""tensorstore's generation of an object that is not there."""

AT_ONCE = 32
"""Files whose content is held in memory at a time; how many requests are under way is tensorstore's to limit."""


class Known(NamedTuple):
    """An object as we last saw it, and the local file that has its content."""

    generation: bytes
    stamp: Stamp


class Mirror:
    """One folder, here and in the bucket."""

    def __init__(
        self, folder: Path, bucket: ts.KvStore, *, keep_new: bool = False, confirm: Callable[[], bool] = lambda: True
    ) -> None:
        """Take both as they are.

        Args:
          keep_new: whether files that only the local copy has are kept when others have written to the bucket:
            right for a prepared data set, whose subjects have nothing to do with one another, and wrong for a run.
          confirm: asked whether we still own the folder where an object is not what we know: what a former owner had
            on its way is then written over.
        """
        self.folder, self._bucket, self._keep_new, self._confirm = folder, bucket, keep_new, confirm
        self._known = _read_state(folder / STATE)

    def pull(self, marked: bool) -> int:
        """Make the local copy what the bucket holds.

        Where nobody else has written to the bucket, local changes that were never brought there are kept.

        Args:
          marked: see `remote_files`.

        Returns:
          How many files were fetched.

        Raises:
          InputError: an object's name would be a file of another place (see `listing.check_name`).
          ValueError: tensorstore's, there is no way to the bucket.
          OSError: the files cannot be written here.
        """
        there, here, known = remote_files(self._bucket, marked), local_files(self.folder), self._known
        both = [n for n in there if n in known and n in here]
        theirs = there - known.keys()
        for names in _chunks(both, AT_ONCE):
            looks = [(n, self._bucket.read(n, if_not_equal=known[n].generation)) for n in names]
            theirs |= {n for n, look in looks if look.result().state != "unspecified"}
        gone = known.keys() - there
        wanted = theirs | (there - here.keys())
        if theirs or gone:
            if not self._keep_new:  # theirs in full: a mixture of two runs would be neither
                wanted |= {n for n in both if here[n] != known[n].stamp}
            for name in gone if self._keep_new else here.keys() - there:
                self._path(name).unlink(missing_ok=True)
        for name in gone:
            del known[name]
        for names in _chunks(sorted(wanted), AT_ONCE):
            reads = [(n, self._bucket.read(n)) for n in names]
            for name, read in reads:
                found = read.result()
                if found.state == "value":  # else deleted since it was listed
                    path = self._path(name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with replacing(path, "wb") as f:
                        f.write(found.value)
                    known[name] = Known(found.stamp.generation, stamp_of(path.stat()))
        self._save()
        return len(wanted)

    def mark(self) -> None:
        """Say of every checkpoint there that it is whole: what a user has copied to the bucket does not."""
        for step, files in _by_step(self._known).items():
            self._mark(step, marker(step, files))

    def push(self, go_on: Callable[[], bool] = lambda: True) -> int:
        """Bring to the bucket what changed here since.

        A checkpoint comes after the smaller files that were there when it was finished, so that whoever goes on from
        it finds its history; what says that a run or a data set is finished comes last; deletions come after all.

        Args:
          go_on: asked now and then; False ends it.

        Returns:
          How many files were sent.

        Raises:
          ValueError: tensorstore's, there is no way to the bucket.
        """
        first = local_files(self.folder)
        # A record follows its arrays: those of every record in the first list are in the second.
        second = local_files(self.folder)
        arrays = {n: s for n, s in second.items() if _is_array(n)}
        steps = {n: s for n, s in first.items() if step_of(n)}
        rest = {n: s for n, s in first.items() if n not in steps and not _is_array(n)}
        last = {n: rest.pop(n) for n in list(rest) if _says_done(n)}
        sent = self._send(arrays, go_on) + self._send(rest, go_on)
        finished = set()
        for step, names in _by_step(steps).items():
            if of_step := self._send_step(step, {n: steps[n] for n in names}, go_on):
                sent += of_step
                finished.add(step)
        sent += self._send(last, go_on)
        if go_on():
            gone = [n for n in self._known if n not in first and n not in second]
            self._delete(gone, finished)
            sent += len(gone)
        if sent:
            self._save()
        return sent

    def _send(self, files: dict[str, Stamp], go_on: Callable[[], bool]) -> int:
        sent = 0
        for names in _chunks(self._changed(files), AT_ONCE):
            if not go_on():
                break
            writes = []
            for name in names:
                try:
                    content = (self.folder / name).read_bytes()
                except FileNotFoundError:
                    continue
                known = self._known[name].generation if name in self._known else MISSING
                writes.append((name, content, self._bucket.write(name, content, if_equal=known)))
            for name, content, write in writes:
                generation = write.result().generation or self._settle(name, content)
                if generation:
                    self._known[name] = Known(generation, files[name])
                    sent += 1
        return sent

    def _send_step(self, step: str, files: dict[str, Stamp], go_on: Callable[[], bool]) -> int:
        """Send a checkpoint, if any of it has changed: how many files."""
        if not self._changed(files):
            return 0
        if step in _by_step(self._known):  # another one of the same step is there: not half of each
            self._mark(step, None)
        sent = self._send(files, go_on)
        if not self._changed(files):
            self._mark(step, marker(step, list(files)))
        return sent

    def _changed(self, files: dict[str, Stamp]) -> list[str]:
        """Which of these files the bucket does not have as they are."""
        return [n for n in sorted(files) if n not in self._known or self._known[n].stamp != files[n]]

    def _delete(self, names: Sequence[str], finished: set[str]) -> None:
        """Delete objects; of a checkpoint that loses any of them first what says that it is whole.

        A checkpoint in `finished` was written anew in this very call and says so of its new files.
        """
        for step in _by_step(names):
            if step not in finished:
                self._mark(step, None)
        writes = [(n, self._bucket.write(n, None, if_equal=self._known[n].generation)) for n in names]
        for name, write in writes:
            if write.result().generation or self._settle(name, None):
                del self._known[name]

    def _mark(self, step: str, content: bytes | None) -> None:
        """Write or delete what says that a checkpoint is whole."""
        name = f"{step}/{WHOLE}"
        generation = self._bucket.read(name).result().stamp.generation
        if self._confirm():  # only now: nobody else's is taken for the one that was read
            self._bucket.write(name, content, if_equal=generation).result()

    def _settle(self, name: str, content: bytes | None) -> bytes | None:
        """Write or delete an object that is not what we know: its generation; None where we own the folder no more."""
        for _ in range(3):
            found = self._bucket.read(name).result()
            if (found.value if found.state == "value" else None) == content:
                return found.stamp.generation  # type: ignore[no-any-return]  # an answer got lost
            if not self._confirm():
                break
            stamp = self._bucket.write(name, content, if_equal=found.stamp.generation).result()
            if stamp.generation:
                return stamp.generation  # type: ignore[no-any-return]
        return None

    def _path(self, name: str) -> Path:
        """Where an object is here. Raises InputError: it would be outside the folder, by its name or through a link."""
        path = self.folder / check_name(name)
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{path} is outside {self.folder.resolve()} through a link: remove that link.")
        return path

    def _save(self) -> None:
        files = {n: [base64.b64encode(k.generation).decode(), *k.stamp] for n, k in sorted(self._known.items())}
        write_json(self.folder / STATE, {"files": files})


def _read_state(path: Path) -> dict[str, Known]:
    """What was known; nothing where that cannot be read, and then everything is fetched anew."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {n: Known(base64.b64decode(g), Stamp(size, time)) for n, (g, size, time) in files.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _by_step(names: Iterable[str]) -> dict[str, list[str]]:
    """The files among these that are part of a checkpoint, by checkpoint."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if step := step_of(name):
            found.setdefault(step, []).append(name)
    return found


def _is_array(name: str) -> bool:
    """Whether a file is part of a prepared subject's arrays."""
    return ".zarr/" in name


def _says_done(name: str) -> bool:
    return name.rpartition("/")[2] in ("summary.json", "manifest.json")


def _chunks(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for i in range(0, len(names), size):
        yield names[i : i + size]
