"""results.csv of a sweep, written from its finished cells.

results.csv has one row a cell, structure and subject, in the columns of `studies.results_table.COLUMNS` (and
`FACTOR_COLUMNS`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.evaluate.results import COLUMNS as SCORES
from tlseg_jax.evaluate.table import read_table, write_table
from tlseg_jax.studies.cells import Cell, PretrainCell
from tlseg_jax.studies.results_table import ALL, COLUMNS, FACTOR_COLUMNS, Role


@dataclasses.dataclass(frozen=True)
class DoneCell:
    """A finished cell or pre-training in its run folder.

    Attributes:
      n: how many scans it was trained on.
      roles: test set -> what it is to the model.
    """

    cell: Cell | PretrainCell
    folder: Path
    n: int
    freeze: str
    roles: Mapping[str, Role]

    @property
    def label(self) -> str:
        """The n that was asked for: with folds of different sizes "all" is one n and several numbers of scans."""
        return ALL if isinstance(self.cell, Cell) and self.cell.n is None else str(self.n)


def rows_of(study: str, done: DoneCell) -> list[dict[str, str]]:
    """The rows of a finished cell.

    Raises:
      InputError: a file in its folder is missing or damaged.
    """
    summary = read_json(done.folder / "summary.json")
    cell = done.cell
    if isinstance(cell, Cell):
        m = cell.method
        own = {"method": m.name, "baseline": m.baseline, "remedy": m.remedy, "pretask": m.pretask}
        own |= {f"factor_{k}": v for k, v in m.factors.items()}
    else:
        own = {"method": "", "baseline": "", "remedy": "", "pretask": cell.pretask}
    own |= {
        "study": study,
        "freeze": done.freeze,
        "n": done.label,
        "scans": str(done.n),
        "seed": str(cell.seed),
        "fold": "" if cell.fold is None else str(cell.fold),
        "steps": str(summary["steps"]),
        "train_seconds": f"{summary.get('train_seconds', 0):.3f}",
        "cell": done.folder.name,
    }
    rows = []
    for scores in read_table(done.folder / "subjects.csv", SCORES):
        name = scores["test_set"]
        if name not in done.roles:
            continue
        synthetic = "1" if summary["test_sets"][name]["synthetic"] else "0"
        rows.append(own | scores | {"role": done.roles[name], "synthetic": synthetic})
    return rows


def write_results(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write results.csv, whole or not at all."""
    columns = COLUMNS + (FACTOR_COLUMNS if any("factor_structure" in r for r in rows) else ())
    write_table(path, columns, [{c: r.get(c, "") for c in columns} for r in rows])
