"""The runs of a sweep that predict best together: the seeds of its best method, kept in SWEEP/ensemble.json."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies.results_table import ResultRow, Results, by_person, read_results

NAME = "ensemble.json"


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Runs of one method, n and fold, which differ in their seeds.

    Attributes:
      method: the one with the highest mean IoU of the target's persons.
      n: labelled scans, the most that any method has.
      iou: that mean, of its runs one by one.
      cells: names of the run folders.
    """

    method: str
    n: int
    iou: float
    cells: tuple[str, ...]


def best_ensemble(results: Results) -> Ensemble | None:
    """The ensemble of a sweep; None where no method has two seeds of one fold at the largest n.

    Of several folds it is the one with the most seeds, then the first: models of other folds have seen this one's test
    persons. The choice is by the test scores themselves, so that the ensemble's own score on them is a little too good.
    """
    target = [r for r in results if r.role == "target" and r.method]
    if not target:
        return None
    most = max(r.n for r in target)
    at_most = [r for r in target if r.n == most]
    scores: dict[str, tuple[float, Sequence[ResultRow]]] = {}
    for method in dict.fromkeys(r.method for r in at_most):
        ours = [r for r in at_most if r.method == method]
        folds = {f: [r for r in ours if r.fold == f] for f in dict.fromkeys(r.fold for r in ours)}
        chosen = max(folds.values(), key=lambda rows: len({r.seed for r in rows}))
        if len({r.seed for r in chosen}) > 1:
            scores[method] = (float(np.mean(list(by_person(ours).values()))), chosen)
    if not scores:
        return None
    best = max(scores, key=lambda m: scores[m][0])
    iou, rows = scores[best]
    return Ensemble(best, int(most), iou, tuple(dict.fromkeys(r.cell for r in rows)))


def keep_ensemble(sweep: Path) -> Ensemble | None:
    """Write the ensemble of a sweep's folder, or take away that of an earlier call where there is none."""
    path = sweep / NAME
    found = best_ensemble(read_results(sweep / "results.csv"))
    if found is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, dataclasses.asdict(found) | {"runs": [f"cells/{c}" for c in found.cells]})
    return found


def runs_of(path: Path) -> list[Path]:
    """The run folders of an ensemble.json.

    Raises:
      InputError: it is none, or one of its runs is not there.
    """
    names = read_json(path).get("runs")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not names:
        raise InputError(f"{path} lists no runs: run the sweep again, which writes it.")
    runs = [path.parent / n for n in names]
    for run in runs:
        if not run.is_dir():
            raise InputError(f"{path} lists {run}, which is not there: keep the sweep's folder together.")
    return runs
