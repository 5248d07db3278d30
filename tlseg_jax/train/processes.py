"""What the processes of one run tell one another: who writes, what the chief read, what each of them found.

The chief is process 0: it alone reads and writes the run's folder and prints. With one process nothing here does
anything, and no collective is compiled.
"""

import json
from typing import Any

import jax
import numpy as np


def count() -> int:
    """Processes of the run."""
    return jax.process_count()


def index() -> int:
    """Which of them this is, from 0."""
    return jax.process_index()


def is_chief() -> bool:
    """Whether this process writes."""
    return index() == 0


def wait(name: str) -> None:
    """Wait until every process is here; `name` is the same on all."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def share(value: Any = None) -> Any:
    """The chief's value, of what JSON can hold, on every process; what the others give is not looked at."""
    if count() == 1:
        return value
    from jax.experimental import multihost_utils

    text = json.dumps(value).encode() if is_chief() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    held = np.frombuffer(text, np.uint8) if is_chief() else np.zeros(size, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(held)).tobytes())


def share_arrays(tree: Any) -> Any:
    """The chief's tree of NumPy arrays on every process; the others give one of the same shapes and types."""
    if count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def gather(value: Any) -> list[Any]:
    """Every process's value, of what JSON can hold, in the order of the processes, on all of them."""
    if count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    text = json.dumps(value).encode()
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(text))))
    held = np.zeros(int(sizes.max()), np.uint8)
    held[: len(text)] = np.frombuffer(text, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(held))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
