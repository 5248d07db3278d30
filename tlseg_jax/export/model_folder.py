"""A trained model as a folder to hand on: checkpoint, StableHLO program and card, checked by checksum.

MODEL/checkpoint/        Orbax: parameters, running averages and the description
MODEL/model.stablehlo    the network as one program (`export.stablehlo`)
MODEL/card.json          what is known of it (`export.card`), and the SHA-256 of each file
MODEL/CARD.md            the same for people
MODEL/trust.json         how far its predictions are to be believed, where the run was calibrated (`trust.trust_file`)
"""

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tlseg_jax.checkpoints.checkpoint import SPARE_BYTES, SavedModel, load_model
from tlseg_jax.checkpoints.checkpoint_files import plain_path
from tlseg_jax.checkpoints.exported import (
    CARD,
    CHECKPOINT,
    PROGRAM,
    card_digest,
    changed_file,
    exported_handler,
    is_exported,
    load_exported,
    read_card,
)
from tlseg_jax.checkpoints.run_folder import plain, read_json
from tlseg_jax.evaluate.trust.trust_file import NAME as TRUST
from tlseg_jax.export.card import card_text, make_card, public_description
from tlseg_jax.export.stablehlo import PLATFORMS, calling_convention, check_platforms, export_network, program_version
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import flush, lock_folder, write_json
from tlseg_jax.runtime.messages import log
from tlseg_jax.runtime.written import file_digest

TEXT = "CARD.md"


def export_model(run: Path, output: Path, *, licence: str = "", platforms: Sequence[str] = PLATFORMS) -> dict[str, Any]:
    """Write a run's model to a folder of its own, whole or not at all.

    An export of the same run that is there already is left where nothing changed, and else replaced.

    Args:
      run: the run folder; only read.
      output: the folder to make.
      licence: in words, as it is to stand in the card.
      platforms: that the program is made for; none: it is left out.

    Returns:
      The card, as written.

    Raises:
      InputError: the run has no model, or something else is at `output`.
      OSError: the disk has no room for it.
    """
    chosen = check_platforms(platforms) if platforms else ()
    if is_exported(run):
        raise InputError(f"{run} is an exported model already: copy that folder, or give the run that it is from.")
    saved, settings = load_model(run), read_json(run / "settings.json")
    summary = read_json(run / "summary.json") if (run / "summary.json").exists() else {}
    program: dict[str, Any] = {}
    if chosen:
        program = {"file": PROGRAM, "platforms": list(chosen), **calling_convention(saved.config), **program_version()}
    card = plain(make_card(saved, settings, summary, licence, program))
    beside, before = (output.with_name(f".{output.name}.{end}") for end in ("new", "old"))
    with lock_folder(beside, "output"):
        try:
            if before.exists():
                _finish_replacing(output, before)
            if _already_there(output, card, run / TRUST):
                log.info(f"{output}: this model is there already; nothing was written.")
                return read_card(output)
            _check_replaceable(output, card["run"])
            _write(beside, saved, card, chosen, run / TRUST)
            load_exported(beside)  # what cannot be read takes nothing's place
            # Whoever else is to export here makes a folder of its own from now on.
            (beside / ".lock").unlink()
            if output.exists():
                output.rename(before)
            beside.rename(output)
            flush(output.parent)
            shutil.rmtree(before, ignore_errors=True)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return read_card(output)


def _already_there(output: Path, card: Mapping[str, Any], trust: Path) -> bool:
    try:
        there = read_card(output)
    except InputError:
        return False
    calibrated = file_digest(trust) if trust.exists() else None
    if there["files"].get(TRUST) != calibrated:
        return False
    return all(there.get(k) == v for k, v in card.items()) and not changed_file(output, there)


def _check_replaceable(output: Path, run: str) -> None:
    """Raise an InputError where `output` holds anything but an export of this run, or a text edited by hand."""
    if not output.exists() and not output.is_symlink():
        return
    if output.is_dir() and not output.is_symlink():
        if not any(output.iterdir()):
            return
        try:
            card = json.loads((output / CARD).read_text(encoding="utf-8"))
            if isinstance(card, dict) and card.get("run") == run and "program" in card:
                _check_nothing_else(output, card["files"])
                return
        except (OSError, ValueError, KeyError):
            pass
    raise InputError(f"{output} exists and is no export of this run: choose another `output`, or remove it.")


def _check_nothing_else(output: Path, files: Mapping[str, str]) -> None:
    """Raise an InputError where replacing the folder would lose what somebody added to it or wrote in it."""
    there = {p.relative_to(output).as_posix() for p in output.rglob("*") if not p.is_dir() or p.is_symlink()}
    others = sorted(there - {*files, CARD, ".lock"})
    if not others and TEXT in there and file_digest(output / TEXT) != files.get(TEXT):
        others = [TEXT]
    if others:
        raise InputError(
            f"{output / others[0]} was added or edited since the export and would be lost: move it away, or choose "
            "another `output`."
        )


def _finish_replacing(output: Path, before: Path) -> None:
    """Undo or finish what an export that was killed between its two renames left."""
    if output.exists():
        shutil.rmtree(before)
    else:
        before.rename(output)


def _write(folder: Path, saved: SavedModel, card: dict[str, Any], platforms: Sequence[str], trust: Path) -> None:
    """All files of a model into a folder that is locked; what an earlier try left there goes."""
    for path in folder.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    state = jax.tree.map(np.asarray, {"params": saved.params, "batch_stats": saved.batch_stats})
    # Orbax meets a full disk in many threads at once, each with a traceback: better not to begin.
    needed = 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + SPARE_BYTES
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    with plain_path(folder) as where, ocp.Checkpointer(exported_handler()) as writer:
        writer.save(
            where / CHECKPOINT,
            ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                description=ocp.args.JsonSave(public_description(saved.description, saved.step)),
            ),
        )
    for marker in (folder / CHECKPOINT).rglob("commit_success.txt"):
        # Orbax writes this machine's path into it; that the file is there is all that it reads of it.
        marker.write_text("This checkpoint is whole.\n", encoding="utf-8")
    if platforms:
        (folder / PROGRAM).write_bytes(export_network(saved.config, saved.params, saved.batch_stats, platforms))
    (folder / TEXT).write_text(card_text(card), encoding="utf-8")
    if trust.exists():
        shutil.copyfile(trust, folder / TRUST)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    checksums = {}
    for path in files:
        checksums[path.relative_to(folder).as_posix()] = file_digest(path)
        flush(path)
    whole = card | {"files": checksums}
    write_json(folder / CARD, whole | {"digest": card_digest(whole)})
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        flush(path)
