"""One checkpoint's folder: what is in it, and whether all of it is what was written.

STEP/state/         every array of the training state (Orbax)
STEP/input/         where the stream of batches is, of all processes together (JSON)
STEP/description/   what the run is, to rebuild the network from (JSON)
STEP/digest/        SHA-256 of each array and of the two JSON values (JSON)
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax.traverse_util import flatten_dict

from tlseg_jax.runtime.errors import InputError

FORMAT = 2
"""Of a checkpoint's folder; 1 had no digests, and the position of one process."""

UNFINISHED = ".orbax-checkpoint-tmp"
"""In the name of a checkpoint's folder that Orbax has not finished; of one that is being deleted too."""


_SPECIAL = frozenset("[*?\\")
"""What Orbax does not take for itself in the name of a folder."""


class Damaged(Exception):
    """A checkpoint that is not what was written; the message is the fault, in a few words."""


def digests(tree: dict[str, Any], position: Any, description: dict[str, Any]) -> dict[str, Any]:
    """SHA-256 of every array of a tree, with its shape and type, and of two values that JSON can hold."""
    arrays = {"/".join(k): _array_digest(v) for k, v in flatten_dict(tree).items()}
    return {"arrays": arrays, "input": _value_digest(position), "description": _value_digest(description)}


def _array_digest(value: Any) -> str:
    array = np.ascontiguousarray(value)
    found = hashlib.sha256(f"{array.dtype} {np.shape(value)} ".encode())
    found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _value_digest(value: Any) -> str:
    # As it comes back from JSON, where tuples are lists and all keys are text.
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def steps_in(folder: Path) -> list[int]:
    """The steps of the finished checkpoints of a folder, ascending; none where there is no such folder."""
    try:
        return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    except FileNotFoundError:
        return []


def read_description(path: Path) -> dict[str, Any]:
    """What the run was, from a checkpoint's folder; not yet compared with its digest.

    Raises:
      Damaged: it cannot be read.
      InputError: it was written by another version, or may not be read.
    """
    found: dict[str, Any] = _json(path, "description")
    if found.get("format") != FORMAT:
        raise InputError(
            f"The checkpoint {path} was written by another version (format {found.get('format')}, this one reads "
            f"{FORMAT}): train again in another folder."
        )
    return found


def read_checkpoint(path: Path, parts: Sequence[str] = ()) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """The arrays, the input position and the description of a checkpoint's folder, all compared with their digests.

    Args:
      path: the folder.
      parts: of the state, such as "params"; none: all.

    Returns:
      The tree of host arrays, the position and the description.

    Raises:
      Damaged: anything of it cannot be read or is not what was written.
      InputError: it was written by another version, or may not be read.
    """
    description, written = read_description(path), _json(path, "digest")
    position = _json(path, "input")
    tree = _arrays(path / "state", parts)
    found = digests(tree, position, description)
    there = written.get("arrays")
    if not isinstance(there, dict):
        raise Damaged("no list of its arrays' digests")
    wanted = {k: v for k, v in there.items() if not parts or k.split("/")[0] in parts}
    for name in ("description", "input"):
        if found[name] != written.get(name):
            raise Damaged(f"its {name} is not what was written")
    for key in sorted(wanted.keys() | found["arrays"].keys()):
        if wanted.get(key) != found["arrays"].get(key):
            raise Damaged(f"its array {key} is not what was written")
    return tree, position, description


def _json(path: Path, name: str) -> Any:
    try:
        value = json.loads((path / name / "metadata").read_text(encoding="utf-8"))
    except PermissionError as e:
        raise _refused(path, e) from None
    except (OSError, ValueError) as e:
        raise Damaged(f"its {name} cannot be read: {first_line(e)}") from None
    if not isinstance(value, dict):
        raise Damaged(f"its {name} is not what was written")
    return value


def _arrays(path: Path, parts: Sequence[str]) -> dict[str, Any]:
    try:
        with (
            plain_path(path) as where,
            contextlib.closing(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone())) as reader,
        ):
            _read_through(where)
            tree = reader.metadata(where).tree
            wanted = {k: tree[k] for k in parts or tree}
            target = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), wanted)
            found = reader.restore(
                where,
                args=ocp.args.PyTreeRestore(
                    target,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                    partial_restore=bool(parts),
                ),
            )
    except PermissionError as e:
        raise _refused(path, e) from None
    except (MemoryError, InputError):
        raise
    except Exception as e:  # what Orbax and its store raise for a damaged file is listed nowhere
        if "PERMISSION_DENIED" in str(e):
            raise _refused(path, e) from None
        raise Damaged(first_line(e)) from None
    return found  # type: ignore[no-any-return]


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    r"""A folder's path as Orbax can use it, while the body runs: absolute, and through a link where it has `[*?\`.

    Orbax finds the pieces of a checkpoint by a glob pattern in which it does not escape the folder, and leaves them out
    without a word where that finds none; its store takes a `\` for a `/`.

    Raises:
      InputError: the folder of temporary files, where the link has to be, has such a name too.
    """
    folder = folder.resolve()
    if not _SPECIAL & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tlseg_jax-") as beside:
        link = Path(beside).resolve() / "folder"
        if _SPECIAL & set(str(link)):
            raise InputError(
                f"{folder} and {link.parent} both have one of {' '.join(sorted(_SPECIAL))} in their names: set TMPDIR "
                "to a folder that has none."
            )
        link.symlink_to(folder)
        yield link


def alone() -> ocp.options.MultiprocessingOptions:
    """Orbax for this process alone, which asks no other one for anything."""
    here = jax.process_index()
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(here, {here}, f"process{here}")


def _refused(path: Path, error: BaseException) -> InputError:
    return InputError(f"The checkpoint {path} may not be read ({first_line(error)}): change its owner or its rights.")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, shortened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _read_through(folder: Path) -> None:
    """Read every stored piece once, one after another; ValueError where one is damaged.

    Orbax reads many at a time: where one fails, the others print tracebacks of their own as they end.
    """
    base = {"driver": "file", "path": f"{folder}/"}
    pieces = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    for key in pieces.list().result():
        pieces.read(key).result()
