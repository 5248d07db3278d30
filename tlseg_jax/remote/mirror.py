"""A local copy of a folder in a bucket: brought here, and brought back as it changes.

The bucket has the last word: where someone else has written there since we last looked, their files replace ours. An
object is written and deleted only where it still is what we know of it, so that what was on its way while this process
was suspended, and lost its lease, replaces nothing of the new owner's.
"""

import base64
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

from tlseg_jax.remote.listing import WHOLE, Stamp, check_name, local_files, marker, remote_files, step_of
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing, write_json

STATE = ".remote.json"
"""Local file: what is known of the objects in the bucket, so that what has not changed is not fetched again."""

MISSING = ts.KvStore.open({"driver": "memory"}).result().read("none").result().stamp.generation
"""tensorstore's generation of an object that is not there."""

AT_ONCE = 32
"""Objects under way at a time."""


@dataclasses.dataclass
class Known:
    """An object as we last saw it, and the local file that has its content."""

    generation: bytes
    stamp: Stamp


class Mirror:
    """One folder, here and in the bucket."""

    def __init__(
        self, folder: Path, bucket: ts.KvStore, *, keep_new: bool = False, confirm: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        """Take both as they are.

        Args:
          folder: the local copy.
          bucket: the folder in the bucket.
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
        there, here = remote_files(self._bucket, marked), local_files(self.folder)
        both = [n for n in there if n in self._known and n in here]
        changed = [n for n, read in self._read(both, ours=True) if read.state != "unspecified"]
        new = [n for n in there if n not in self._known]
        gone = [n for n in self._known if n not in there]
        wanted = {*changed, *new, *(n for n in there if n not in here)}
        if changed or new or gone:
            known = {n: k.stamp for n, k in self._known.items()}
            if not self._keep_new:  # theirs in full: a mixture of two runs would be neither
                wanted |= {n for n in both if here[n] != known[n]}
            leave = gone if self._keep_new else [n for n in here if n not in there]
            for name in leave:
                self._path(name).unlink(missing_ok=True)
                self._known.pop(name, None)
        for name, read in self._read(sorted(wanted)):
            if read.state != "value":
                continue  # deleted since it was listed
            path = self._path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, "wb") as f:
                f.write(read.value)
            self._know(name, read.stamp.generation, _stamp(path))
        for name in [n for n in self._known if n not in there]:
            del self._known[name]
        self._save()
        return len(wanted)

    def mark(self) -> None:
        """Say of every checkpoint there that it is whole: what a user has copied to the bucket does not."""
        steps = {s for n in self._known if (s := step_of(n))}
        for s in sorted(steps):
            self._mark(s, marker(s, self._files_of(s)))

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
        for step in sorted({s for n in steps if (s := step_of(n))}):
            of_step = self._send_step(step, {n: s for n, s in steps.items() if step_of(n) == step}, go_on)
            sent += of_step
            if of_step:
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
        changed = [n for n in sorted(files) if n not in self._known or self._known[n].stamp != files[n]]
        sent = 0
        for names in _chunks(changed, AT_ONCE):
            if not go_on():
                break
            writes = []
            for name in names:
                try:
                    content = (self.folder / name).read_bytes()
                except FileNotFoundError:
                    continue
                writes.append((name, content, self._bucket.write(name, content, if_equal=self._generation(name))))
            for name, content, write in writes:
                generation = write.result().generation or self._settle(name, content)
                if generation:
                    self._know(name, generation, files[name])
                    sent += 1
        return sent

    def _send_step(self, step: str, files: dict[str, Stamp], go_on: Callable[[], bool]) -> int:
        """Send a checkpoint, if any of it has changed: how many files."""
        if all(n in self._known and self._known[n].stamp == s for n, s in files.items()):
            return 0
        if self._files_of(step):  # another one of the same step is there: not half of each
            self._mark(step, None)
        sent = self._send(files, go_on)
        if all(n in self._known and self._known[n].stamp == s for n, s in files.items()):
            self._mark(step, marker(step, list(files)))
        return sent

    def _delete(self, names: Sequence[str], finished: set[str]) -> None:
        """Delete objects; of a checkpoint that loses any of them first what says that it is whole.

        A checkpoint in `finished` was written anew in this very call and says so of its new files.
        """
        steps = {s for n in names if (s := step_of(n))} - finished
        for s in sorted(steps):
            self._mark(s, None)
        for chunk in _chunks(names, AT_ONCE):
            writes = [(n, self._bucket.write(n, None, if_equal=self._generation(n))) for n in chunk]
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

    def _generation(self, name: str) -> bytes:
        return self._known[name].generation if name in self._known else MISSING

    def _path(self, name: str) -> Path:
        """Where an object is here. Raises InputError: it would be outside the folder, by its name or through a link."""
        path = self.folder / check_name(name)
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{path} is outside {self.folder.resolve()} through a link: remove that link.")
        return path

    def _read(self, names: Sequence[str], ours: bool = False) -> Iterator[tuple[str, Any]]:
        """Objects by name; with `ours`, "unspecified" for those that are what we know."""
        for chunk in _chunks(names, AT_ONCE):
            reads = [
                self._bucket.read(n, if_not_equal=self._known[n].generation) if ours else self._bucket.read(n)
                for n in chunk
            ]
            for name, read in zip(chunk, reads, strict=True):
                yield name, read.result()

    def _files_of(self, step: str) -> list[str]:
        return [n for n in self._known if step_of(n) == step]

    def _know(self, name: str, generation: bytes, stamp: Stamp) -> None:
        self._known[name] = Known(generation, stamp)

    def _save(self) -> None:
        files = {
            n: [base64.b64encode(k.generation).decode(), *k.stamp] for n, k in sorted(self._known.items())
        }
        write_json(self.folder / STATE, {"files": files})


def _read_state(path: Path) -> dict[str, Known]:
    """What was known; nothing where that cannot be read, and then everything is fetched anew."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {n: Known(base64.b64decode(g), Stamp(size, time)) for n, (g, size, time) in files.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return Stamp(stat.st_size, stat.st_mtime_ns)


def _is_array(name: str) -> bool:
    """Whether a file is part of a prepared subject's arrays."""
    return ".zarr/" in name


def _says_done(name: str) -> bool:
    return name.rpartition("/")[2] in ("summary.json", "manifest.json")


def _chunks(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for i in range(0, len(names), size):
        yield names[i : i + size]
