"""Calibrations beside a model: RUN/trust.json, by the weights that they are of.

It names no scan, person or path, so that it can be handed on with the model.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tlseg_jax.evaluate.trust.calibration import Calibration
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

NAME = "trust.json"
FORMAT = 1


def key_of(weights: Sequence[str]) -> str:
    """What a calibration goes by: the weights of a model, or those of several together, in any order."""
    return weights[0] if len(weights) == 1 else hashlib.sha256("".join(sorted(weights)).encode()).hexdigest()


def save_calibration(folder: Path, weights: Sequence[str], calibration: Calibration) -> Path:
    """Write a calibration beside a model; those of others there stay.

    Raises:
      InputError: the file there is damaged.
    """
    path = folder / NAME
    known = _read(path) if path.exists() else {}
    write_json(path, {"format": FORMAT, "calibrations": {**known, key_of(weights): calibration.to_dict()}})
    return path


def load_calibration(folder: Path, weights: Sequence[str]) -> Calibration | None:
    """The calibration of a model, or of several together; None: there is none.

    Raises:
      InputError: the file there is damaged or of another version.
    """
    path = folder / NAME
    if not path.exists():
        return None
    found = _read(path).get(key_of(weights))
    if found is None:
        return None
    try:
        return Calibration.from_dict(found)
    except (KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{path} is damaged ({e}): remove it and calibrate again (evaluate with `trust`).") from None


def _read(path: Path) -> dict[str, dict[str, object]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise InputError(f"{path} was written by another version: remove it and calibrate again.")
        found = value["calibrations"]
        if not isinstance(found, dict):
            raise TypeError("no calibrations are in it")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{path} is damaged ({e}): remove it and calibrate again (evaluate with `trust`).") from None
    return found
