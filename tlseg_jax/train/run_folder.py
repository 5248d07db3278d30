"""A run's folder: one process at a time, its settings beside its results, nothing half written."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from tlseg_jax.errors import InputError
from tlseg_jax.files import lock_folder, write_json
from tlseg_jax.train import processes


@contextlib.contextmanager
def hold_run(folder: Path, flag: str = "workdir") -> Iterator[None]:
    """Hold a run's folder as `lock_folder` does, on the chief for all processes of the run.

    Raises:
      InputError: it cannot be held; on every process.
    """
    with contextlib.ExitStack() as held:
        processes.chief(lambda: held.enter_context(lock_folder(folder, flag)))
        yield


def claim_settings(folder: Path, settings: dict[str, Any]) -> bool:
    """Write `settings.json`, or check that the one there says the same; the chief does, for all processes of the run.

    Returns:
      Whether the folder already held these settings.

    Raises:
      InputError: it holds other settings; the differing ones are named.
    """
    claimed: bool = processes.chief(lambda: _claim(folder, plain(settings)))
    return claimed


def _claim(folder: Path, settings: dict[str, Any]) -> bool:
    path = folder / "settings.json"
    if not path.exists():
        write_json(path, settings)
        return False
    now, there = flatten_dict(settings, sep="."), flatten_dict(read_json(path), sep=".")
    differing = [k for k in now | there if there.get(k) != now.get(k)]
    if differing:
        k = differing[0]
        raise InputError(
            f"The run folder {folder} was made with other settings ({', '.join(differing)}; "
            f"{k} was {_short(there.get(k))} and is now {_short(now.get(k))}): "
            "choose another --workdir or remove that folder."
        )
    return True


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are after a trip through JSON, where tuples are lists."""
    return json.loads(json.dumps(settings))  # type: ignore[no-any-return]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of ours.

    Raises:
      InputError: missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it does not hold one JSON object")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give the folder of a run that has trained.") from None
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read ({e}): remove it and run again.") from None
    return value
