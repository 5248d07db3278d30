"""Files and folders that are whole or not there, and used by one process at a time."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.errors import InputError


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w", newline: str | None = None) -> Iterator[IO[Any]]:
    """A file to write in place of `path`: written beside it, flushed to the disk and renamed at the end.

    Where the body fails, `path` stays as it was and nothing is left beside it.

    Args:
      path: the file to make or replace; its folder exists.
      mode: "w" for UTF-8 text, "wb" for bytes.
    """
    # Containers of one job array share a file system, and their processes often a number.
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        # A file's name may hold bytes that are no text: they are written as \udcXX, as JSON does.
        text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
        with beside.open(mode, newline=newline, **text) as f:  # type: ignore[call-overload]
            yield f
            f.flush()
            os.fsync(f.fileno())
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Our folder of the user's caches (XDG Base Directory Specification, XDG_CACHE_HOME).

    Raises:
      RuntimeError: the user has no home folder.
    """
    given = Path(environment.get("XDG_CACHE_HOME", ""))
    # The specification has relative paths ignored.
    return (given if given.is_absolute() else Path.home() / ".cache") / "tlseg_jax"


def full_disk(error: BaseException) -> bool:
    """Whether an error, ours or from a library that only passes text on, is a full disk."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, ValueError | RuntimeError | OSError) and "No space left on device" in str(error)


def make_folder(folder: Path) -> None:
    """Make a folder for results, and those above it, and see that it can be written to.

    Raises:
      InputError: it cannot be, for want of permission or because a file has that name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        if full_disk(e):
            raise
        raise _cannot_be_made(folder, e.errno) from None


def check_can_be_made(folder: Path) -> None:
    """As `make_folder`, as far as can be told without making anything.

    Raises:
      InputError: see `make_folder`.
    """
    there = folder.absolute()
    while not os.path.lexists(there) and there.parent != there:
        there = there.parent
    if not there.is_dir():
        raise _cannot_be_made(folder, errno.ENOTDIR)
    if not os.access(there, os.W_OK | os.X_OK):
        raise _cannot_be_made(folder, errno.EACCES)


def _cannot_be_made(folder: Path, why: int | None) -> InputError:
    reason = os.strerror(why or errno.EIO)
    return InputError(f"The folder {folder} cannot be made or written to ({reason}): choose another.")


def local_folder(text: str) -> Path:
    r"""The folder that a flag names, for arrays to be kept in.

    Raises:
      InputError: there is a `\` in its path: the store of arrays takes that for a `/`, and writes elsewhere.
    """
    folder = Path(text)
    if "\\" in str(folder.absolute()):
        raise InputError(f"{folder.absolute()} has a '\\' in its path and cannot hold arrays: choose another folder.")
    return folder


def flush(path: Path) -> None:
    """Have the operating system put a file's content, or a folder's list of files, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def told(folder: Path) -> Iterator[None]:
    """Have the body, which writes in `folder` and does little else, fail in one sentence.

    Raises:
      InputError: it cannot be written any more.
      OSError: the disk is full, also where a library only said so in words; commands have their sentence for it.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as e:
        full = errno.ENOSPC if "No space left on device" in str(e) else getattr(e, "errno", None)
        if full in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(full, os.strerror(full), str(folder)) from None
        reason = getattr(e, "strerror", None) or (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise InputError(
            f"{folder} cannot be written any more ({reason}): what was saved there before stays as it was; see to "
            "that folder and run the same command again."
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON to `path`, whole or not at all."""
    with replacing(path) as f:
        json.dump(value, f, indent=1, allow_nan=False)
        f.write("\n")


@contextlib.contextmanager
def making(folder: Path, flag: str) -> Iterator[None]:
    """Have the body, which makes a folder, fail in one sentence; a full disk is left for the command to tell.

    Raises:
      InputError: a file is in the way, or it cannot be made.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder} cannot be written (a file is in the way): choose another --{flag}.") from None
    except OSError as e:
        if full_disk(e):
            raise
        remedy = ", or change its owner" if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else ""
        raise InputError(f"{folder} cannot be written ({e.strerror}): choose another --{flag}{remedy}.") from None


@contextlib.contextmanager
def lock_folder(folder: Path, flag: str = "workdir") -> Iterator[None]:
    """Make `folder` and hold it for this process; the operating system frees it however we end.

    Where it is kept in another place too, it is held there as well (`elsewhere`).

    Args:
      flag: what to choose another of, in messages.

    Raises:
      InputError: another process holds it, or it cannot be made.
    """
    with making(folder, flag):
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("a")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"The folder {folder} is in use by another process: wait for it, or choose another --{flag}."
            ) from None
        # Subjects of a data set have nothing to do with one another; the files of a run have.
        with elsewhere.current().hold(folder, keep_new=flag == "store"):
            yield
