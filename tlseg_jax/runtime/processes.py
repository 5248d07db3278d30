"""What the processes of one run tell one another: who writes, what the chief read, what each of them found.

The chief is process 0: it alone reads and writes the run's folder and prints. With one process nothing here does
anything. Plain values go through the coordination service that `runtime.cluster` starts, and not through the devices:
there they would have to wait for the training steps under way, and a CPU's devices give up waiting for one another.

All processes call these functions in the same order, each from its main thread.
"""

import itertools
import json
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tlseg_jax.runtime.errors import InputError

LONGEST_MS = 7 * 24 * 3600 * 1000
"""Milliseconds that one process waits for another; whether that one still lives is watched by `runtime.cluster`."""

T = TypeVar("T")

_numbers = itertools.count()
_read_by_all: list[str] = []


def count() -> int:
    """Processes of the run; asks no device."""
    state = _met()
    return state.num_processes if state else 1


def index() -> int:
    """Which of them this is, from 0; asks no device."""
    state = _met()
    return state.process_id if state else 0


def rows_index() -> int:
    """Which part of every batch this process reads: its devices' place among all, which a TPU's topology decides."""
    if count() == 1:
        return 0
    import jax

    return jax.process_index()


def service() -> Any:
    """The client of the service through which the processes talk; None where there is one process."""
    state = _met()
    return state.client if state else None


def _met() -> Any:
    """What JAX knows of the processes that have met; None of a single one.

    JAX is not imported for this: what prepares scans does without it. There is no public name for the client.
    """
    loaded = sys.modules.get("jax._src.distributed")
    state = getattr(loaded, "global_state", None)
    return state if state is not None and state.client is not None else None


def is_chief() -> bool:
    """Whether this process writes."""
    return index() == 0


def wait(name: str) -> None:
    """Wait until every process is here; `name` is the same on all."""
    if count() == 1:
        return
    done = len(_read_by_all)
    barrier = f"tlseg/{name}/{next(_numbers)}"
    _interruptible(lambda: service().wait_at_barrier(barrier, LONGEST_MS))
    # Whoever is here has read what was shared before.
    for key in _read_by_all[:done] if is_chief() else ():
        service().key_value_delete(key)
    del _read_by_all[:done]


def share(value: Any = None) -> Any:
    """The chief's value, of what JSON can hold, on every process; what the others give is not looked at."""
    if count() == 1:
        return value
    key = f"tlseg/share/{next(_numbers)}"
    client = service()
    if is_chief():
        text = json.dumps(value)
        client.key_value_set(key, text)
    else:
        text = _interruptible(lambda: client.blocking_key_value_get(key, LONGEST_MS))
    _read_by_all.append(key)
    return json.loads(text)


def share_arrays(tree: Any) -> Any:
    """The chief's tree of NumPy arrays on every process, bit by bit; the others give one of the same shapes and types.

    They go through the devices, as one array of bytes.
    """
    if count() == 1:
        return tree
    import jax
    from jax.experimental import multihost_utils

    leaves, treedef = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    joined = np.frombuffer(b"".join(a.tobytes() for a in arrays), np.uint8)
    wait("arrays")  # the chief may have taken its time to read them
    sent = np.asarray(multihost_utils.broadcast_one_to_all(joined)).tobytes()
    ends = [0, *itertools.accumulate(a.nbytes for a in arrays)]
    return jax.tree.unflatten(
        treedef,
        [
            np.frombuffer(sent[a:b], leaf.dtype).reshape(leaf.shape).copy()
            for leaf, a, b in zip(arrays, ends, ends[1:], strict=False)
        ],
    )


def gather(value: Any) -> list[Any]:
    """Every process's value, of what JSON can hold, in the order of the processes, on all of them."""
    if count() == 1:
        return [value]
    key, client = f"tlseg/gather/{next(_numbers)}", service()
    client.key_value_set_bytes(f"{key}/{index()}", json.dumps(value).encode())
    wait("gather")
    found = dict(client.key_value_dir_get_bytes(f"{key}/"))
    _read_by_all.append(key)
    return [json.loads(found[f"{key}/{i}"]) for i in range(count())]


def chief(do: Callable[[], Any]) -> Any:
    """What `do` gives on the chief, of what JSON can hold, on every process; the others do nothing but wait for it.

    Raises:
      InputError: the chief's, on every process.
    """
    if count() == 1:
        return do()
    return _value(share(_outcome(do) if is_chief() else None))


def each(do: Callable[[], Any]) -> list[Any]:
    """What `do` gives on each process, of what JSON can hold, in the order of the processes, on all of them.

    Raises:
      InputError: the first process's that met one, on every process.
    """
    if count() == 1:
        return [do()]
    return [_value(outcome) for outcome in gather(_outcome(do))]


def divide(items: Sequence[T], do: Callable[[Sequence[T]], Sequence[Any]]) -> list[Any]:
    """What `do` gives of each of `items`, in their order, on every process; each process does every P-th of them.

    Args:
      items: the same on every process.
      do: from some of them to a list that is as long, of what JSON can hold.

    Raises:
      InputError: the first process's that met one, on every process.
    """
    n = count()
    parts = each(lambda: list(do(items[index() :: n])))
    return [parts[i % n][i // n] for i in range(len(items))]


def _outcome(do: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": do()}
    except InputError as e:
        return {"error": str(e)}


def _value(outcome: dict[str, Any]) -> Any:
    if "error" in outcome:
        raise InputError(outcome["error"])
    return outcome["value"]


def _interruptible(call: Callable[[], Any]) -> Any:
    """Do a call that may block for long beside the main thread, where signals are still heard."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as e:  # given on below
            failed.append(e)

    beside = threading.Thread(target=run, daemon=True)
    beside.start()
    while beside.is_alive():
        beside.join(0.5)
    if failed:
        raise failed[0]
    return found[0] if found else None
