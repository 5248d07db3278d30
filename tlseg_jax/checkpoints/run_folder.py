"""A run's folder: one process at a time, its settings beside its results, nothing half written."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from tlseg_jax.runtime import elsewhere, processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder, write_json
from tlseg_jax.runtime.messages import log

NO_MATTER = (
    *("job.threads", "job.workers", "job.checkpoint_every", "job.watch_every", "pretrained.run"),
    "lowering",  # the same up to rounding
    # The data and the network's other settings say these already.
    *("job.network.dimensions", "job.network.architecture", "job.recipe.synthetic"),
)
NO_MATTER_WITHOUT_VALIDATION = ("job.validate_every", "job.patience")
"""Settings that do not change the model that a run makes."""


@contextlib.contextmanager
def hold_run(folder: Path, flag: str = "workdir") -> Iterator[None]:
    """Hold a run's folder as `lock_folder` does, on the chief for all processes of the run.

    Raises:
      InputError: it cannot be held; on every process.
    """
    with contextlib.ExitStack() as locks:
        processes.chief(lambda: locks.enter_context(lock_folder(folder, flag)))
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
    check_settings(folder, settings)
    return True


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make sure that a folder holds no other run than that of `settings`, or of the parts of them that are given.

    Raises:
      InputError: it does; the settings that differ are named.
    """
    there = _settings_in(folder)
    if there is not None and (differ := differing(settings, {k: there.get(k) for k in settings})):
        raise InputError(
            f"The run folder {folder} was made with other settings ({differ}): "
            "choose another `workdir` or remove that folder."
        )


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's settings makes its model, "job.recipe.loss" -> value; where the start lies does not."""
    flat: dict[str, Any] = flatten_dict(plain(dict(settings)), sep=".")
    without = NO_MATTER + (() if flat.get("job.validation") else NO_MATTER_WITHOUT_VALIDATION)
    return {k: v for k, v in flat.items() if k not in without}


def differing(settings: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """In what a run of `settings` is another than that of `there`, in words; "" where they are the same run."""
    a, b = identity(settings), identity(there)
    keys = [k for k in a | b if a.get(k) != b.get(k)]
    if not keys:
        return ""
    k = keys[0]
    return f"{', '.join(keys)}; {k} was {_short(b.get(k))} and is now {_short(a.get(k))}"


def holds(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder is that of the run of these settings, however far it has come."""
    there = _settings_in(folder)
    return there is not None and not differing(settings, there)


def _settings_in(folder: Path) -> dict[str, Any] | None:
    elsewhere.current().fetch(folder)
    path = folder / "settings.json"
    return read_json(path) if path.exists() else None


def recorded_lowering(folder: Path) -> str | None:
    """The form of convolution that the run in a folder began with; None: there is none, or it says nothing."""
    found: str | None = processes.chief(lambda: (_settings_in(folder) or {}).get("lowering"))
    return found


def own_folder(folder: Path, settings: Mapping[str, Any]) -> Path:
    """The folder of a run: `folder`, or one beside it, named by what the run is, where that holds another run.

    So no run takes another's place or passes for it, in whatever order they are made. The chief looks.
    """
    digest = hashlib.sha256(json.dumps(identity(settings), sort_keys=True).encode()).hexdigest()
    beside = folder.with_name(f"{folder.name}-{digest[:8]}")

    def look() -> list[Any]:
        there = _settings_in(folder)
        return [holds(beside, settings), "" if there is None else differing(settings, there)]

    there, differ = processes.chief(look)
    if differ:
        log.info(f"{folder} holds a run of other settings ({differ}), so this one is in {beside}.")
    return beside if there or differ else folder


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
