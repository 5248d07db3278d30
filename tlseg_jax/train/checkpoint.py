"""Orbax checkpoints: state, input position and a description to rebuild the network from, together."""

import contextlib
import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax.traverse_util import flatten_dict

from tlseg_jax.errors import InputError
from tlseg_jax.models.networks import NetworkConfig, config_from_dict
from tlseg_jax.train.state import TrainState

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

FORMAT = 1

SPARE_BYTES = 1 << 20
"""Room for a checkpoint's small files, besides its arrays."""


def _tree(state: TrainState) -> dict[str, Any]:
    """The state as plain dicts of host arrays; copies, since the next step overwrites its buffers."""
    leaves = {"step": state.step, "params": state.params, "batch_stats": state.batch_stats}
    return jax.tree.map(np.array, leaves) | {
        "opt_state": {str(i): np.array(v) for i, v in enumerate(jax.tree.leaves(state.opt_state))}
    }


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _read_through(folder: Path) -> None:
    """Read every stored piece once, one after another; ValueError where one is damaged.

    Orbax reads many at a time: where one fails, the others print tracebacks of their own as they end.
    """
    base = {"driver": "file", "path": f"{folder.absolute()}/"}
    pieces = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    for key in pieces.list().result():
        pieces.read(key).result()


class Checkpoints:
    """The checkpoints of one run, newest kept.

    Use as a context manager, or call `close`: saving goes on in the background.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        """Open (and make) `folder`, keeping the newest `keep`."""
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            item_names=("state", "input", "description"),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is being saved."""
        try:
            self._manager.wait_until_finished()
        finally:
            with contextlib.suppress(Exception):
                self._manager.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, iterator: "grain.DatasetIterator", description: dict[str, Any]) -> None:
        """Save in the background; a step that is already saved is left.

        Raises:
          OSError: the disk has no room for it.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        tree = _tree(state)
        import grain

        # Orbax meets a full disk in many threads at once, each with a traceback: better not to begin.
        needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + SPARE_BYTES
        if shutil.disk_usage(self._manager.directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._manager.directory))
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(tree),
                input=grain.checkpoint.CheckpointSave(iterator),
                description=ocp.args.JsonSave(description | {"format": FORMAT, "step": step}),
            ),
        )

    def restore(self, state: TrainState, iterator: "grain.DatasetIterator") -> TrainState:
        """The newest state, shaped as `state`; sets the iterator to where it was.

        Raises:
          InputError: there is none, it is damaged, or it is of another network; all differences are listed.
        """
        import grain

        target = _tree(state)
        step = self.latest
        if step is None:
            raise InputError("There is no checkpoint to restore: start the run again.")
        shapes = ocp.checkpoint_utils.construct_restore_args(target)
        try:
            _read_through(Path(self._manager.directory) / str(step) / "state")
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(target, restore_args=shapes),
                    input=grain.checkpoint.CheckpointRestore(iterator),
                ),
            )["state"]
        except (OSError, ValueError, KeyError) as e:
            path = self._manager.directory / str(step)
            raise InputError(
                f"The checkpoint {path} cannot be read ({_first_line(e)}): it is damaged; remove that folder "
                "to go on from the one before it."
            ) from None
        check_same(target, restored, f"checkpoint {step}")
        restored = jax.tree.map(jax.numpy.asarray, restored)
        leaves, treedef = jax.tree.flatten(state.opt_state)
        moments = [restored["opt_state"][str(i)] for i in range(len(leaves))]
        return TrainState(
            restored["step"], restored["params"], restored["batch_stats"], jax.tree.unflatten(treedef, moments),
            state.seed,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained network read from a run folder, with no flags.

    Attributes:
      config: the network.
      params: its parameters.
      batch_stats: its running averages.
      description: what the run recorded: data set, patch, preprocessing, training subjects.
      step: of the checkpoint.
    """

    config: NetworkConfig
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    description: dict[str, Any]
    step: int


def checkpoint_folder(run: Path) -> Path:
    """The best checkpoint by validation where the run kept one, else the newest."""
    best = run / "checkpoints_best"
    return best if best.is_dir() and any(p.name.isdigit() for p in best.iterdir()) else run / "checkpoints"


def load_model(run: Path) -> SavedModel:
    """The network that a run folder holds.

    Raises:
      InputError: no finished checkpoint there, or one that cannot be read.
    """
    folder = checkpoint_folder(run)
    steps = sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []
    if not steps:
        raise InputError(f"There is no trained model in {run}: give the folder of a run that has trained.")
    step = steps[-1]
    path = (folder / str(step)).absolute()
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            description: dict[str, Any] = reader.restore(path / "description")
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            _read_through(path / "state")
            item = reader.metadata(path / "state").item_metadata
            if item is None:
                raise ValueError("no list of its arrays")
            metadata = item.tree
            wanted = {k: metadata[k] for k in ("params", "batch_stats")}
            target = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), wanted)
            state = reader.restore(
                path / "state",
                ocp.args.PyTreeRestore(
                    target,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                    partial_restore=True,
                ),
            )
    except (OSError, ValueError, KeyError) as e:
        raise InputError(
            f"The checkpoint {path} cannot be read ({_first_line(e)}): it is damaged; train again."
        ) from None
    if description.get("format") != FORMAT:
        raise InputError(f"The checkpoint {path} was written by another version: train again.")
    config = config_from_dict(description["network"])
    return SavedModel(config, state["params"], state["batch_stats"], description, step)


def list_differences(expected: Any, found: Any) -> list[str]:
    """Every difference of structure, shape or dtype between two trees of arrays, one line each."""
    a = {"/".join(map(str, k)): v for k, v in flatten_dict(expected).items()}
    b = {"/".join(map(str, k)): v for k, v in flatten_dict(found).items()}
    lines = [f"{k}: missing" for k in a if k not in b] + [f"{k}: not expected" for k in b if k not in a]
    for k in a:
        if k in b and (np.shape(a[k]) != np.shape(b[k]) or a[k].dtype != b[k].dtype):
            lines.append(f"{k}: {b[k].dtype} {tuple(np.shape(b[k]))} instead of {a[k].dtype} {tuple(np.shape(a[k]))}")
    return sorted(lines)


def check_same(expected: Any, found: Any, where: str) -> None:
    """Raise an InputError that lists every difference between two trees (Orbax may load some silently)."""
    lines = list_differences(expected, found)
    if lines:
        raise InputError(f"{where} does not fit this network: " + "; ".join(lines) + ".")
