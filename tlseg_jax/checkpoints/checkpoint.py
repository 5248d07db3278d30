"""Orbax checkpoints: state, input position and a description to rebuild the network from, together.

Of several processes only the chief reads and writes; the others are told.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from tlseg_jax.checkpoints.checkpoint_files import (
    FORMAT,
    UNFINISHED,
    Damaged,
    alone,
    digests,
    plain_path,
    read_checkpoint,
    read_description,
    steps_in,
)
from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.models.networks import config_from_dict
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime import elsewhere, processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import told
from tlseg_jax.runtime.messages import log

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

KEEP = 3
"""Newest checkpoints that stay, besides the best by validation."""

SCORE = "validation_iou"
"""In the description of a checkpoint that was validated."""

SPARE_BYTES = 1 << 20
"""Room for a checkpoint's small files, besides its arrays."""


def _tree(state: TrainState) -> dict[str, Any]:
    """The state as plain dicts of host arrays; copies, since the next step overwrites its buffers.

    "params" and "batch_stats" are the model, for whoever reads it: of averaged weights the average, and what training
    goes on from is then "last".
    """
    leaves = {"step": state.step, **state.model}
    if state.average is not None:
        leaves["last"] = {"params": state.params, "batch_stats": state.batch_stats}
    return jax.tree.map(np.array, leaves) | {
        "opt_state": {str(i): np.array(v) for i, v in enumerate(jax.tree.leaves(state.opt_state))},
        "seed": np.array(state.seed, np.uint32),
    }


class Checkpoints:
    """The checkpoints of one run: the newest, and the best by validation.

    Use as a context manager, or call `close`: saving goes on in the background. Every process of a run makes the
    same calls.
    """

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        """Make `folder`, in which no other process may be writing.

        Args:
          folder: of the checkpoints; damaged ones are moved to `damaged` beside it.
          keep: the newest that stay.
        """
        self._folder, self._keep = folder.resolve(), keep
        self._best: tuple[float, int] | None = None
        self._manager: ocp.CheckpointManager | None = None
        self._paths = contextlib.ExitStack()
        self._read_back = False
        if not processes.is_chief():
            return
        with told(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob(f"*{UNFINISHED}*"):  # by a process that was killed
                shutil.rmtree(left)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is being saved."""
        if self._manager is None:
            return
        try:
            with told(self._folder):
                self._manager.wait_until_finished()
                self._delete_old()
        finally:
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = None
            self._paths.close()

    def save(
        self,
        state: TrainState,
        iterator: "grain.DatasetIterator",
        description: dict[str, Any],
        score: float | None = None,
    ) -> None:
        """Save in the background; a step that is already saved is left.

        The first is waited for and read back: what cannot be read is told then and not when the training is over.

        Args:
          state: its arrays are whole in this process.
          iterator: of batches; its position is the same in every process, and for any number of them.
          description: what the run is; JSON can hold it.
          score: of a validation at this step, larger is better.

        Raises:
          OSError: the disk has no room for it.
          InputError: the folder cannot be written any more, or what was written there cannot be read.
        """
        if not processes.is_chief():
            return
        step = int(state.step)
        if step in steps_in(self._folder):
            return
        tree, position = _tree(state), iterator.get_state()
        description = description | {"format": FORMAT, "step": step} | ({} if score is None else {SCORE: score})
        # Orbax meets a full disk in many threads at once, each with a traceback: better not to begin.
        needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + SPARE_BYTES
        with told(self._folder):
            if shutil.disk_usage(self._folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
            manager = self._open()
            manager.wait_until_finished()
            if step in steps_in(self._folder):  # it was being written
                return
            self._delete_old()  # only now: the one before this is whole
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(tree),
                    input=ocp.args.JsonSave(position),
                    description=ocp.args.JsonSave(description),
                    digest=ocp.args.JsonSave(digests(tree, position, description)),
                ),
            )
            if not self._read_back:
                manager.wait_until_finished()
        if not self._read_back:
            try:
                read_checkpoint(self._folder / str(step))
            except Damaged as e:
                raise InputError(
                    f"The first checkpoint, {self._folder / str(step)}, cannot be read back ({e}): training has ended, "
                    "as its result would be lost; choose another `workdir`."
                ) from None
            self._read_back = True
        if score is not None and (self._best is None or score > self._best[0]):
            self._best = (score, step)

    def restore(self, state: TrainState, iterator: "grain.DatasetIterator") -> TrainState:
        """The newest state that is whole, of host arrays; sets the iterator to where it was.

        Checkpoints that are newer and damaged are moved aside, and named. Where none was ever saved, `state` is
        returned as it is.

        Raises:
          InputError: all are damaged, or one is of another network: all differences are listed.
        """
        target = _tree(state)
        found: tuple[dict[str, Any], Any] | None = None
        fault: str | None = None
        if processes.is_chief():
            try:
                found = self._newest()
                if found is not None:
                    check_same(target, found[0], f"checkpoint {int(found[0]['step'])}")
            except InputError as e:
                fault = str(e)
        fault, there, position = processes.share((fault, found is not None, found[1] if found else None))
        if fault is not None:
            raise InputError(fault)
        if not there:
            return state
        tree = processes.share_arrays(found[0] if found else target)
        iterator.set_state(position)
        leaves, treedef = jax.tree.flatten(state.opt_state)
        moments = [tree["opt_state"][str(i)] for i in range(len(leaves))]
        model = {"params": tree["params"], "batch_stats": tree["batch_stats"]}
        last = model if state.average is None else tree["last"]
        return TrainState(
            tree["step"],
            last["params"],
            last["batch_stats"],
            jax.tree.unflatten(treedef, moments),
            tree["seed"],
            None if state.average is None else model,
        )

    def _newest(self) -> tuple[dict[str, Any], Any] | None:
        """The arrays and the input position of the newest checkpoint that is whole; None where there is none."""
        steps = steps_in(self._folder)
        faults: dict[int, str] = {}
        for step in reversed(steps):
            try:
                tree, position, _ = read_checkpoint(self._folder / str(step))
                break
            except Damaged as e:
                faults[step] = str(e)
        else:
            if not steps:
                return None
            # Nothing is moved: the same command would begin again and write over what is left.
            listed = "; ".join(f"{step}: {fault}" for step, fault in faults.items())
            raise InputError(
                f"Every checkpoint in {self._folder} is damaged ({listed}): remove {self._folder.parent} to train "
                "again."
            )
        for damaged, fault in faults.items():
            aside = _set_aside(self._folder / str(damaged))
            log.warning(
                f"The checkpoint of step {damaged} is damaged ({fault}): it was moved to {aside}, and the run goes on "
                f"from step {step}."
            )
        self._best = _best(self._folder)
        return tree, position

    def _delete_old(self) -> None:
        steps = steps_in(self._folder)
        stays = {*steps[-self._keep :], *([self._best[1]] if self._best else [])}
        for step in steps:
            if step not in stays:
                # Renamed first, so that a kill in the middle of it leaves nothing that looks like a checkpoint.
                leaving = self._folder / f"{step}{UNFINISHED}-deleted"
                (self._folder / str(step)).rename(leaving)
                shutil.rmtree(leaving)

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone())
            names = ("state", "input", "description", "digest")
            folder = self._paths.enter_context(plain_path(self._folder))
            self._manager = ocp.CheckpointManager(folder, options=options, item_names=names)
        return self._manager


def _set_aside(path: Path) -> Path:
    """Move a step's folder to `damaged` beside the checkpoints; nothing there is written over."""
    aside = path.parent.parent / "damaged"
    aside.mkdir(exist_ok=True)
    name, again = path.name, 1
    while (aside / name).exists():
        again += 1
        name = f"{path.name}.{again}"
    path.rename(aside / name)
    return aside / name


def _best(folder: Path) -> tuple[float, int] | None:
    """The best score of the checkpoints and its step, the earliest of equals."""
    best: tuple[float, int] | None = None
    for step in steps_in(folder):
        with contextlib.suppress(Damaged):
            score = read_description(folder / str(step)).get(SCORE)
            if score is not None and (best is None or score > best[0]):
                best = (float(score), step)
    return best


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

    config: UNetConfig
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    description: dict[str, Any]
    step: int

    @functools.cached_property
    def weights(self) -> str:
        """A checksum of the parameters and running averages, with their names and types."""
        digest = hashlib.sha256()
        tree = {"params": self.params, "batch_stats": self.batch_stats}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            array = np.asarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def load_model(run: Path) -> SavedModel:
    """The network that a run folder holds: the best checkpoint by validation, else the newest.

    Where that one is damaged, the next best that is whole is read, and it is said. Reads in this process alone.

    Raises:
      InputError: no finished checkpoint there, or none that can be read.
    """
    elsewhere.current().fetch(run)
    folder = (run / "checkpoints").resolve()
    steps = steps_in(folder)
    if not steps:
        raise InputError(f"There is no trained model in {run}: give the folder of a run that has trained.")
    scored: list[tuple[float, int]] = []
    faults: dict[int, str] = {}
    for step in steps:
        try:
            score = read_description(folder / str(step)).get(SCORE)
            scored += [] if score is None else [(-score, step)]
        except Damaged as e:
            faults[step] = str(e)
    best = [step for _, step in sorted(scored)]
    for step in [*best, *(s for s in reversed(steps) if s not in best and s not in faults)]:
        try:
            tree, _, description = read_checkpoint(folder / str(step), ("params", "batch_stats"))
        except Damaged as e:
            faults[step] = str(e)
            continue
        for damaged, fault in faults.items():
            log.warning(f"The checkpoint {folder / str(damaged)} is damaged ({fault}): step {step} is used.")
        config = config_from_dict(description["network"])
        return SavedModel(config, tree["params"], tree["batch_stats"], description, step)
    listed = "; ".join(f"{folder / str(step)} cannot be read ({fault})" for step, fault in faults.items())
    raise InputError(f"There is no checkpoint in {run} that is not damaged: {listed}; train again.")


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
