"""Reading an exported model: its card and checkpoint, checked by checksum (written by `export.model_folder`)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tlseg_jax.checkpoints.checkpoint import SavedModel, check_same, load_model
from tlseg_jax.checkpoints.checkpoint_files import first_line, plain_path
from tlseg_jax.models.networks import config_from_dict, variable_shapes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.written import file_digest

CARD, CHECKPOINT, PROGRAM = "card.json", "checkpoint", "model.stablehlo"

FORMAT = 1

USED = ("format", "model", "program", "files")
"""What of the card a prediction depends on; the rest may be edited by hand."""


def is_exported(folder: Path) -> bool:
    """Whether a folder is an exported model, and not a run."""
    return (folder / CARD).exists()


def load_saved(folder: Path) -> SavedModel:
    """The model of a run folder or of an exported one.

    Raises:
      InputError: see `load_model` and `load_exported`.
    """
    return load_exported(folder) if is_exported(folder) else load_model(folder)


def load_exported(folder: Path) -> SavedModel:
    """The model of an exported folder, by its checkpoint.

    Raises:
      InputError: a file is missing, was changed or is of another version; it is named.
    """
    card = checked_card(folder, CHECKPOINT)
    path = folder / CHECKPOINT
    config = config_from_dict(card["model"]["network"])
    shapes = {k: v for k, v in variable_shapes(config).items() if k in ("params", "batch_stats")}
    target = jax.tree.map(lambda s: np.empty(s.shape, s.dtype), shapes)
    try:
        with plain_path(path) as where, ocp.Checkpointer(exported_handler()) as reader:
            found = reader.restore(
                where,
                ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)
                    ),
                    description=ocp.args.JsonRestore(),
                ),
            )
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{path} cannot be read ({first_line(e)}): export the run again.") from None
    check_same(target, found["state"], str(path))
    description = found["description"]
    return SavedModel(config, found["state"]["params"], found["state"]["batch_stats"], description, description["step"])


def exported_handler() -> ocp.CompositeCheckpointHandler:
    """What reads and writes an exported checkpoint: the state and its description."""
    return ocp.CompositeCheckpointHandler("state", "description")


def checked_card(folder: Path, part: str) -> dict[str, Any]:
    """The card of an exported model, after the files of one part of it were compared with their checksums.

    Args:
      folder: the model's.
      part: CHECKPOINT or PROGRAM.

    Raises:
      InputError: a file is missing or was changed, or the card is damaged or of another version.
    """
    card = read_card(folder)
    fault = changed_file(folder, card, part)
    if fault:
        raise InputError(f"{fault}: export the run again, or copy the model again.")
    return card


def read_card(folder: Path) -> dict[str, Any]:
    """The card of an exported model.

    Raises:
      InputError: it is missing, damaged, changed by hand or of another version.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist, and a model cannot be used without it: keep the exported folder together."
        ) from None
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read ({first_line(e)}): copy or export the model again.") from None
    if not isinstance(card, dict) or not isinstance(card.get("files"), dict):
        raise InputError(f"{path} is no card of an exported model: give the folder of one.")
    if card.get("format") != FORMAT:
        raise InputError(f"{path} was written by another version: export the run again.")
    if card.get("digest") != card_digest(card):
        raise InputError(
            f"{path} was changed or damaged in what predictions depend on ({', '.join(USED)}): "
            "copy or export the model again."
        )
    return card


def card_digest(card: Mapping[str, Any]) -> str:
    """Of what a prediction depends on."""
    used = {k: card.get(k) for k in USED}
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()


def changed_file(folder: Path, card: Mapping[str, Any], part: str = "") -> str:
    """The first file of a part that is not as it was written, and how; "" where all are."""
    for name, checksum in card["files"].items():
        if part and name != part and not name.startswith(f"{part}/"):
            continue
        path = folder / name
        try:
            found = file_digest(path)
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as e:
            return f"{path} cannot be read ({e.strerror})"
        if found != checksum:
            return f"{path} is not as it was exported (its checksum is another)"
    return ""
