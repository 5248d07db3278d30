"""What of a folder counts, here and in the bucket: whole files, and checkpoints that are there to the last file.

A checkpoint is a folder of files, and a bucket has no renaming that would make all of them appear at once. So an
object beside them, written last and deleted first, lists them; a checkpoint without it is not there.
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import tensorstore as ts

from tlseg_jax.runtime.errors import InputError

WHOLE = ".whole"
"""Name of the object that says that a checkpoint's folder is complete, and of what files."""

_STEP = re.compile(r"((?:.*/)?checkpoints[^/]*/\d+)/")


class Stamp(NamedTuple):
    """A local file's size in bytes and time in ns: where both are the same, so is the file."""

    size: int
    time: int


def stamp_of(stat: os.stat_result) -> Stamp:
    """A file's stamp."""
    return Stamp(stat.st_size, stat.st_mtime_ns)


def step_of(name: str) -> str | None:
    """The checkpoint's folder that a file is part of, or None."""
    found = _STEP.match(name)
    return found[1] if found else None


def counts(name: str) -> bool:
    """Whether a file is one of the results: not a lock, nor half of a file that is being written."""
    return not any(p.startswith(".") or p.endswith(".tmp") or ".orbax-checkpoint-tmp" in p for p in name.split("/"))


def check_name(name: str) -> str:
    """The name of an object, relative to its folder, where it can be that of a file there and of nothing else.

    Raises:
      InputError: a part of it is empty, "." or "..", so that it would be written to another place.
    """
    if "\0" in name or any(p in ("", ".", "..") for p in name.split("/")):
        raise InputError(
            f"The bucket has an object named {name!r}, which cannot be a file of its folder: remove it there."
        )
    return name


def local_files(folder: Path) -> dict[str, Stamp]:
    """The files of a folder that count, by their names relative to it."""
    found: dict[str, Stamp] = {}
    _walk(folder, "", found)
    return found


def _walk(folder: Path, before: str, found: dict[str, Stamp]) -> None:
    try:
        with os.scandir(folder) as entries:
            for e in entries:
                name = before + e.name
                if not counts(e.name):
                    continue
                if e.is_dir(follow_symlinks=False):
                    _walk(Path(e.path), f"{name}/", found)
                elif e.is_file():
                    found[name] = stamp_of(e.stat())
    except FileNotFoundError:
        pass  # it went away meanwhile, as old checkpoints do


def remote_files(bucket: ts.KvStore, marked: bool) -> set[str]:
    """The files of a folder in a bucket that count.

    Args:
      marked: whether we wrote it, so that checkpoints without `WHOLE` are unfinished; what a user has copied there
        has none.

    Raises:
      InputError: see `check_name`; or a name is not UTF-8.
      ValueError: tensorstore's, there is no way to the bucket.
    """
    # What consoles show as an empty folder is an object with a slash at the end.
    names = [n for n in map(_decoded, bucket.list().result()) if n and check_name(n.removesuffix("/")) == n]
    loose = {n for n in names if counts(n) and not (marked and step_of(n))}
    if not marked:
        return loose
    markers = [n for n in names if n.endswith(f"/{WHOLE}") and step_of(n)]
    reads = [(step_of(n), bucket.read(n)) for n in markers]
    there = set(names)
    for step, read in reads:
        found = read.result()
        if found.state == "value":
            listed = {check_name(f"{step}/{name}") for name in _listed(found.value)}
            loose |= listed if listed <= there else set()
    return loose


def _decoded(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise InputError(f"The bucket holds an object named {key!r}, which is not UTF-8: remove it there.") from None


def _listed(content: bytes) -> list[str]:
    """What a marker lists; a damaged one lists a file that is not there."""
    try:
        return [str(name) for name in json.loads(content)["files"]]
    except (ValueError, KeyError, TypeError):
        return [WHOLE + ".damaged"]


def marker(step: str, files: list[str]) -> bytes:
    """What the `WHOLE` object of a checkpoint holds."""
    return json.dumps({"files": sorted(f.removeprefix(f"{step}/") for f in files)}).encode()
