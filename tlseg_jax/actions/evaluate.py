"""Score a trained run on a prepared data set, or calibrate on it what is to be distrusted."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from tlseg_jax.actions import places
from tlseg_jax.actions.places import Named
from tlseg_jax.checkpoints.exported import is_exported, load_saved
from tlseg_jax.checkpoints.run_folder import hold_run
from tlseg_jax.evaluate.readers import ScoreSpace
from tlseg_jax.evaluate.results import format_summary
from tlseg_jax.evaluate.trust.calibration import LEVEL, Calibration
from tlseg_jax.evaluate.trust.passes import COUNT
from tlseg_jax.evaluate.trust.trust_file import save_calibration
from tlseg_jax.preprocess.store.any_store import open_named_store
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.bounds import Bound
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.studies.assess import assess
from tlseg_jax.train.shared_model import load_shared_model

EVALUATED = Path("runs/evaluate")
"""Where the scores of exported models are kept, each in a folder of its name and the start of its checksum."""


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Which scans are scored, and where.

    Attributes:
      split: which subjects.
      space: volumes: compare on the prepared data set's voxels, or on the scan's own, with its label file, as predict
        does.
      allow_seen: score test scans that the model was trained on, too; without it they are refused by name.
      trust: in place of scores calibrate `predict`'s trust on these scans (of several data sets: A,B) and keep it in
        trust.json beside the model; several runs (A,B,C) are calibrated as one ensemble, beside the first.
      passes: of each network, for trust.
    """

    split: Literal["test", "train"] = "test"
    space: ScoreSpace = "data"
    allow_seen: bool = False
    trust: bool = False
    passes: Annotated[int, Bound(2)] = COUNT


def evaluate(named: Named, scoring: Scoring, **measured: Any) -> dict[str, dict[str, Any]]:
    """Score a run, or a model made from one, tell the scores, and keep them in its folder.

    Those of an exported model, or one that comes with the package, are kept in `EVALUATED`: it stays as it was made.

    Args:
      measured: fields of `Workplace` -> values: distances, clean, tiles, tta, adabn.

    Returns:
      Test set -> its summary, as in the run's summary.json.

    Raises:
      InputError: see `assess`; or the run or the store is not there.
    """
    model = places.find_run(named.run)
    saved = load_shared_model(model, read=load_saved)
    run = EVALUATED / f"{model.name}-{saved.weights[:8]}" if is_exported(model) else model
    store = open_named_store(places.store(named.store), named.dataset)
    how = {"split": scoring.split, "space": scoring.space, "allow_seen": scoring.allow_seen, **measured}
    with hold_run(run):
        entries = assess(run, saved, store, progress=processes.is_chief(), named=named.run, **how)
    log.info(format_summary(entries))
    entry = next(iter(entries.values()))
    if seen := entry["seen_in_training"]:
        log.warning(
            f"warning: {len(seen)} of these scans were trained on ({', '.join(seen[:5])}): "
            "the score says little about new scans."
        )
    if entry["synthetic"]:
        log.info("These are drawn, not scanned: the scores mean nothing for patients.")
    log.info(f"run: {run}")
    return entries


def calibrate(named: Named, scoring: Scoring, **measured: Any) -> Calibration:
    """Calibrate trust, keep it beside the model, and tell how well it does.

    Args:
      named: the run, or several (A,B,C), and the data sets (A,B).
      measured: see `evaluate`; without distances, tta and adabn.

    Raises:
      InputError: see `calibrate_trust`; or a setting does not go with it.
    """
    from tlseg_jax.studies.calibrate_trust import calibrate_trust, members_of  # its statistics are slow to import

    if processes.count() > 1:
        raise InputError("`trust` runs in one process: leave out the flags of several.")
    if measured.pop("distances", False):
        raise InputError("`distances` goes with scores, and `trust` makes none: leave one of them out.")
    if not measured.pop("tta", True):
        raise InputError("`notta` goes with scores, and `trust` has passes of its own: leave one of them out.")
    if measured.pop("adabn", 0.0):
        raise InputError("`adabn` goes with scores, and trust is calibrated without it: leave one of them out.")
    folders = places.run_folders(named.run)
    root = places.store(named.store)
    members = members_of([load_saved(f) for f in folders], folders)
    stores = [open_named_store(root, name) for name in named.dataset.split(",")]
    with hold_run(folders[0]):
        found, _ = calibrate_trust(
            members,
            stores,
            passes=scoring.passes,
            split=scoring.split,
            space=scoring.space,
            allow_seen=scoring.allow_seen,
            **measured,
        )
        path = save_calibration(folders[0], [s.weights for s in members.saved], found)
    log.info(_told(found))
    log.info(f"written: {path}")
    return found


def _told(found: Calibration) -> str:
    """How well a calibration does, as a table."""
    m = found.measured
    lines = [
        f"{found.scans} scans of {found.persons} persons, each judged by a calibration on the others:",
        f"{'':36}{'predicted Dice':>16}{'pairwise Dice':>16}{'best':>8}{'chance':>8}",
    ]
    for title, where in (("structures of scans", "all"), ("scans", "scans")):
        a, r = m["aurc"][where], m["rank_correlation"]
        rho = ["-" if r[k][where] is None else f"{r[k][where]:.2f}" for k in ("predicted", "pairwise")]
        lines.append(f"{'rank correlation, ' + title:36}{rho[0]:>16}{rho[1]:>16}")
        values = (f"{a['predicted']:>16.3f}{a['pairwise']:>16.3f}", f"{a['best']:>8.3f}{a['chance']:>8.3f}")
        lines.append(f"{'risk-coverage area, ' + title:36}{''.join(values)}")
    lines.append(
        f"{'mean distance to the true Dice':36}{m['error']['predicted']:>16.3f}{m['error']['pairwise']:>16.3f}"
    )
    if inside := m["coverage"]:
        lines.append(
            f"volumes: {inside['interval']:.0%} of the true ones are in the intervals (wanted: {LEVEL:.0%}), "
            f"{inside['passes']:.0%} within the passes"
        )
    if "flagged" in m:
        lines.append(f"flagged: {m['flagged']:.0%} of these scans; unlike the others: {m['unlike']:.0%}")
    e = m["ece"]
    lines.append(
        f"calibration error near the structures: {e['plain']:.3f} of one pass, {e['mean']:.3f} of the mean, "
        f"{e['tempered']:.3f} at temperature (here {found.temperature:.2f})"
    )
    return "\n".join(lines)
