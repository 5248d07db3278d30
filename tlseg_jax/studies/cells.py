"""The cells of a study: one training run each, with its settings, its place and, once done, its rows of results.csv."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.results import COLUMNS as SCORES
from tlseg_jax.evaluate.table import read_table, write_table
from tlseg_jax.studies.jobs import labelled_name, make_job, make_pretrain_job
from tlseg_jax.studies.results_table import ALL, COLUMNS, FACTOR_COLUMNS, Role
from tlseg_jax.studies.settings import Missing, Precision, Start, Training
from tlseg_jax.studies.study import REMEDIES, Method, Study
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.usual import PAPERS_FREEZE
from tlseg_jax.transfer.freeze import Freeze


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
      method: how.
      n: labelled scans; None for all.
      seed: of the parameters, the order and the choice of scans.
      fold: which persons are held out; None for the prepared split.
    """

    method: Method
    n: int | None
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.method.name}-{labelled_name(self.n)}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class PretrainCell:
    """One pre-training, which the cells of a seed share.

    Seeds that shared one would share its luck too, and no interval over seeds could tell that from a method's effect.

    Attributes:
      pretask: its data set.
      seed: of the parameters and the order, and of the cells that start from it.
      fold: whose persons are held out; None for the prepared split.
    """

    pretask: str
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """Of its folder."""
        name = Path(self.pretask).stem
        return f"{name}{'' if self.fold is None else f'-fold{self.fold}'}-seed{self.seed}"


def cells_of(study: Study) -> tuple[Cell, ...]:
    """Every cell, methods inside seeds inside n, so that an unfinished sweep compares like with like."""
    return tuple(
        Cell(m, n, seed, seed % study.folds if study.folds else None)
        for n in study.n
        for seed in range(study.seeds)
        for m in study.methods
    )


def pretraining_of(cell: Cell) -> PretrainCell | None:
    """The pre-training that a cell starts from; None where it starts from nothing, or from a model that is there."""
    m = cell.method
    return None if m.pretask == "none" or m.pretrained else PretrainCell(m.pretask, cell.seed, cell.fold)


def cell_job(
    study: Study, cell: Cell | PretrainCell, place: Workplace, spec: DatasetSpec, precision: Precision
) -> JobSettings:
    """The settings of a cell or of a pre-training on data of a spec, by the one builder of runs (`jobs`).

    Raises:
      InputError: see `make_job`.
    """
    training = Training(
        seed=cell.seed,
        network=study.network,
        recipe=study.recipe,
        recipe_values=study.recipe_values,
        precision=precision,
        steps=study.steps,
        epochs=study.epochs,
    )
    if isinstance(cell, PretrainCell):
        return make_pretrain_job(place, spec, training, Missing(study.pretrain_steps, study.pretrain_epochs))
    method = cell.method
    if method.remedy:
        changes = REMEDIES[method.remedy].recipe
        training = dataclasses.replace(training, recipe_values={**study.recipe_values, **changes})
    freeze: Freeze = "none" if method.pretask == "none" else method.freeze or PAPERS_FREEZE[spec.kind]
    start = Start(freeze, method.frozen_bn, method.head)
    return make_job(place, spec, "finetune", dataclasses.replace(training, n=cell.n), start)


def folder_of(sweep: Path, cell: Cell | PretrainCell) -> Path:
    """The run folder of a cell or of a pre-training."""
    return sweep / ("cells" if isinstance(cell, Cell) else "pretrain") / cell.name


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
