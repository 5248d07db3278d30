"""Run a study: every method by every number of labelled scans by every seed, each cell once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from tlseg_jax.actions import places
from tlseg_jax.report.registry import check_sections
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.studies.choose_study import Sweeping, choose_study
from tlseg_jax.studies.ensemble import NAME as ENSEMBLE
from tlseg_jax.studies.ensemble import keep_ensemble
from tlseg_jax.studies.plan import plan_sweep
from tlseg_jax.studies.settings import Precision
from tlseg_jax.studies.study import Study
from tlseg_jax.studies.sweep import Sweep, Swept
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.dry_run import format_duration
from tlseg_jax.train.execution import Execution


def check_execution(execution: Execution) -> Execution:
    """How a sweep executes each of its runs, which is on one device.

    Raises:
      InputError: what is asked for is of single runs.
    """
    if execution.parallel in ("pmap", "mesh") or execution.mesh:
        raise InputError(
            "`parallel` and `mesh` are for single runs: a sweep trains a run on each device (`devices=N`), "
            "and the sweep's cells give the same results for any number."
        )
    execution = dataclasses.replace(execution, parallel="one")
    if execution.dry_run or execution.profile:
        raise InputError("`dry_run` and `profile` are for single runs: give `plan` to see what a sweep takes.")
    return execution


def sweep(
    place: Workplace, asked: Sweeping, changes: Mapping[str, Any], precision: Precision, execution: Execution
) -> Swept | None:
    """Run what is missing of a study, and tell what was done; or tell what would be run.

    Args:
      changes: field of `Study` -> value in place of the study's.

    Returns:
      What the call came to; None of a plan.

    Raises:
      InputError: there is no such study, it cannot be run on these data, or a setting does not go with it.
    """
    execution = check_execution(execution)
    study = _with_models(choose_study(asked, changes))
    check_sections((*study.sections, *study.titles))  # before hours of training
    devices = _devices(asked.devices)
    whole = Sweep(place, study, precision)
    if asked.plan:
        plan_sweep(whole, execution, len(devices))
        return None
    swept = whole.run(execution, devices=devices, together=asked.together)
    log.info(f"{len(swept.done)} of {len(whole.runs)} runs done; this call took {format_duration(swept.seconds)}.")
    if others := whole.left_out():
        log.info(
            f"note: {len(others)} runs of earlier calls (such as {others[0]}) are not in results.csv, which has what "
            "this call asks for: give the methods, n and seeds of both to have them together; none is trained again."
        )
    log.info(f"sweep: {swept.folder}")
    together = keep_ensemble(swept.folder) if swept.done else None
    if together:
        log.info(
            f"ensemble: {len(together.cells)} seeds of {together.method} at n = {together.n}, the best by itself "
            f"(IoU {together.iou:.3f}): tlseg predict --run={swept.folder / ENSEMBLE} --trust ..."
        )
    return swept


def _with_models(study: Study) -> Study:
    """The study with the folders of the models that its methods start from, in place of their names and addresses."""
    folders = {named: str(places.find_run(named)) for named in {m.pretrained for m in study.methods} - {""}}
    methods = (dataclasses.replace(m, pretrained=folders.get(m.pretrained, "")) for m in study.methods)
    return dataclasses.replace(study, methods=tuple(methods))


def _devices(count: int | None) -> list[jax.Device]:
    """So many of this machine's devices; None: all.

    Raises:
      InputError: there are fewer.
    """
    local = jax.local_devices()
    if count is not None and count > len(local):
        raise InputError(f"`devices={count}` is not usable: give all, or 1 to {len(local)}.")
    return local[:count]
