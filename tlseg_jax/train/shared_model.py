"""The model of a run folder in every process of a run, of which only the chief reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlseg_jax.checkpoints.checkpoint import SavedModel, load_model
from tlseg_jax.models.networks import config_from_dict
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError

_Tree = dict[str, Any]


def load_shared_model(run: Path, read: Callable[[Path], SavedModel] = load_model) -> SavedModel:
    """As `load_model`, or what else reads a model; every process makes this call, and the chief reads.

    Raises:
      InputError: on every process, what `read` raised on the chief.
    """
    if processes.count() == 1:
        return read(run)
    saved: SavedModel | None = None
    fault: str | None = None
    if processes.is_chief():
        try:
            saved = read(run)
        except InputError as e:
            fault = str(e)
    told = {"shapes": _shapes(_tree(saved)), "description": saved.description, "step": saved.step} if saved else None
    fault, told = processes.share((fault, told))
    if told is None:
        raise InputError(str(fault))
    tree = processes.share_arrays(_tree(saved) if saved else _empty(told["shapes"]))
    description = told["description"]
    return SavedModel(
        config_from_dict(description["network"]), tree["params"], tree["batch_stats"], description, told["step"]
    )


def _tree(saved: SavedModel) -> _Tree:
    return {"params": saved.params, "batch_stats": saved.batch_stats}


def _shapes(tree: _Tree) -> _Tree:
    """The same tree with "float32 3 3 3 8 16" for each array."""
    return jax.tree.map(lambda a: " ".join([str(a.dtype), *map(str, np.shape(a))]), tree)  # type: ignore[no-any-return]


def _empty(shapes: _Tree) -> _Tree:
    def one(text: str) -> Any:
        dtype, *sides = text.split()
        return np.zeros(tuple(map(int, sides)), dtype)

    return jax.tree.map(one, shapes)  # type: ignore[no-any-return]
