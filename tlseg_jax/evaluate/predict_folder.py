"""Many scans segmented into one folder, with a table of volumes; a scan that fails stops no other."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tlseg_jax.evaluate.label_map import SAME
from tlseg_jax.evaluate.predict import Prediction
from tlseg_jax.evaluate.predict_once import Once, Outcome
from tlseg_jax.evaluate.table import read_table
from tlseg_jax.preprocess.reading.formats import extension_of, is_read, parts_of
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import full_disk, make_folder
from tlseg_jax.runtime.messages import log
from tlseg_jax.runtime.written import Written

COLUMNS = ("subject", "input", "output", "seconds", "warning", "problem")
"""Of every volumes.csv, which has besides a column of ml: `volume_ml`, or of several structures one each; and, where
trust was asked for, those of `trust_cells`."""


def output_path(files: ScanFiles, folder: Path, same: bool = False) -> Path:
    """Where the label map of a scan goes: `<subject>_seg`, as NIfTI, or in the scan's format (`label_map.SAME`)."""
    suffix = SAME[extension_of(files.image)] if same and is_read(files.image) else ".nii.gz"
    return folder / f"{files.subject}_seg{suffix}"


def predict_folder(
    scans: Sequence[ScanFiles],
    folder: Path,
    segment: Callable[[ScanFiles], Prediction],
    *,
    model: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    same: bool = False,
    probabilities: bool = False,
    trust: bool = False,
    page: Callable[[Path, Sequence[Outcome]], object] | None = None,
    progress: bool = True,
) -> tuple[Outcome, ...]:
    """Segment many scans.

    A scan that fails is named, with the reason, and the rest go on. `volumes.csv` is rewritten after
    every scan, so that it always tells what is there; rows of other scans that an earlier call wrote stay. A label map
    that an earlier call has made of the same scan by the same model is left as it is.

    Args:
      scans: what to segment.
      folder: for the label maps and volumes.csv; made if it is missing.
      segment: one scan, such as `predict_scan` with a network.
      model, overwrite, probabilities, trust: see `Once`.
      page: writes trust.html of all outcomes, in the end.
      same: write label maps in their scans' formats, not as NIfTI.
      progress: show a bar on stderr.

    Returns:
      One outcome a scan, in order; those with a `problem` have no label map.

    Raises:
      InputError: there is nothing to do, an output would overwrite an input, another output or what is not
        ours (see `Once.check`), or the folder cannot be made.
      OSError: the disk is full, which would stop the other scans too.
    """
    if not scans:
        raise InputError("There are no scans to segment: check `input`.")
    targets = [output_path(s, folder, same) for s in scans]
    _check_targets(scans, targets)
    once, table = Once(segment, model, overwrite, probabilities, trust), folder / "volumes.csv"
    make_folder(folder)
    html = folder / "trust.html"
    once.check([*targets, table, *([html] if page else [])])
    ours = table.name in Written(folder).files() and not Written(folder).others([table.name])
    rows = {r["subject"]: r for r in read_table(table, COLUMNS)} if ours else {}
    outcomes: list[Outcome] = []
    with tqdm(total=len(scans), desc="predict", unit="scan", disable=not progress) as bar:
        for files, target in zip(scans, targets, strict=True):
            start = time.perf_counter()
            try:
                outcome = once.make(files, target)
            except (ExclusionError, InputError) as e:
                outcome = Outcome(files.subject, files.image, problem=str(e))
            except Exception as e:
                if full_disk(e):  # which would stop the other scans too
                    raise
                # Such as a device that ran out of memory: its text can be pages long.
                text = (str(e) or "no message").splitlines()[0][:200]
                outcome = Outcome(files.subject, files.image, problem=f"{type(e).__name__}: {text}")
            if outcome.problem:
                log.warning(f"{files.subject} was not segmented: {outcome.problem}")
            elif outcome.warning:
                log.warning(f"{files.subject}: {outcome.warning}.")
            if outcome.anew:
                outcome = dataclasses.replace(outcome, seconds=time.perf_counter() - start)
            outcomes.append(outcome)
            rows[outcome.subject] = outcome.cells()
            once.write_table(table, _columns(rows.values()), list(rows.values()))
            bar.update()
    if page is not None:
        once.write_page(html, lambda beside: page(beside, outcomes))
    return tuple(outcomes)


def _columns(rows: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """`COLUMNS` with those of ml in their midst, and those of trust behind them."""
    others = list(dict.fromkeys(c for r in rows for c in r if c not in COLUMNS))
    ml = [c for c in others if c.endswith("_ml")]
    return (*COLUMNS[:3], *(ml or ("volume_ml",)), *COLUMNS[3:], *(c for c in others if c not in ml))


def _check_targets(scans: Sequence[ScanFiles], targets: Sequence[Path]) -> None:
    given = (p for s in scans for p in (s.image, s.label, s.mask) if p is not None)
    inputs = {part.resolve() for p in given for part in parts_of(p)}
    seen: set[Path] = set()
    for files, path in zip(scans, targets, strict=True):
        if path.resolve() in inputs:
            raise InputError(
                f"The output {path} is one of the inputs, which are never overwritten: choose another output folder."
            )
        if path in seen:
            raise InputError(f"Two scans are named {files.subject} and would share {path}: rename one.")
        seen.add(path)
