"""What of a sweep is done: the cells whose start, data and test sets are still what they were."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_store
from tests.studies.conftest import MakeSweep
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.report.stats.learning_fit import LearningCurve
from tlseg_jax.report.stats.sweep_stats import learning_curves, mean_scores
from tlseg_jax.report.study_info import read_study
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies.results_table import read_results
from tlseg_jax.studies.sweep import Sweep
from tlseg_jax.train.execution import Execution

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL: dict[str, Any] = {"n": [2], "seeds": 2}


def start_of(sweep: Sweep, cell: str) -> dict[str, Any]:
    return read_json(sweep.folder / "cells" / cell / "settings.json")["pretrained"]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_each_seed_has_a_start_of_its_own_and_what_changed_is_scored_again_without_training(
    make_sweep: MakeSweep, small_stores: Path, tmp_path: Path
) -> None:
    stores = Path(shutil.copytree(small_stores, tmp_path / "stores"))
    sweep = make_sweep(store=stores, **SMALL)
    assert sweep.start(sweep.cells[0]) != sweep.start(sweep.cells[2])  # FT of seeds 0 and 1
    assert not sweep.run(Execution(cache="auto")).failed
    starts = [start_of(sweep, f"FT-n2-seed{s}") for s in (0, 1)]
    assert starts[0]["weights"] != starts[1]["weights"]
    table = sweep.folder / "results.csv"
    before = table.read_text()

    other = stores / "other"
    shutil.rmtree(other)
    spec = read_json(small_stores / "other" / "manifest.json")["spec"]
    old = write_store(other, train=0, test=1, first=10, spec=spec)
    new = write_store(tmp_path / "new", train=0, test=1, first=40)
    shutil.copytree(new.folder / "subjects" / "sub-40.zarr", other / "subjects" / "sub-11.zarr")
    old.manifest["subjects"]["sub-11"] = new.record("sub-40")
    write_json(other / "manifest.json", old.manifest)

    again = make_sweep(store=stores, **SMALL)
    assert [again.is_done(c) for c in again.runs] == [True, True, False, False, False, False]
    histories = {p: p.read_bytes() for p in sweep.folder.rglob("history.csv")}
    assert not again.run(Execution(cache="auto")).failed
    assert {p: p.read_bytes() for p in histories} == histories
    after = table.read_text()
    changed = set(after.splitlines()) ^ set(before.splitlines())
    assert len(changed) == 2 * 4 and all(",unseen,other,blob,sub-11,person-" in line for line in changed)
    assert "person-11" not in after and after.count("person-40") == 4
    fresh = make_sweep("fresh", store=stores, **SMALL)
    assert not fresh.run(Execution(cache="auto")).failed
    ours, theirs = (read_results(s.folder / "results.csv") for s in (again, fresh))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.cell, a.test_set, a.subject, a.person) == (b.cell, b.test_set, b.subject, b.person)
        assert a.reference_ml == b.reference_ml and a.iou == pytest.approx(b.iou, abs=0.02)


@pytest.mark.slow
def test_cells_of_a_start_that_was_made_anew_are_refused_and_stay(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(n=[2], seeds=1)
    assert not sweep.run(Execution(cache="auto")).failed
    first, cell = sweep.folder / "pretrain" / "source-seed0", sweep.folder / "cells" / "FT-n2-seed0"
    before = (cell / "subjects.csv").read_bytes()
    shutil.rmtree(first)
    again = make_sweep(n=[2], seeds=1, pretrain_steps=3)  # the same path and seed, another model
    swept = again.run(Execution(cache="auto"))
    assert list(swept.failed) == ["FT-n2-seed0"] and "pretrained.weights" in swept.failed["FT-n2-seed0"]
    assert (cell / "subjects.csv").read_bytes() == before
    assert not any(r.method == "FT" for r in read_results(sweep.folder / "results.csv"))


@pytest.mark.slow
def test_all_is_one_n_where_folds_leave_different_numbers_of_scans(make_sweep: MakeSweep) -> None:
    """Six persons in four folds: two hold out two persons, two hold out one."""
    sweep = make_sweep(n=[2, 3, "all"], seeds=4, folds=4, methods=[{"name": "E2E"}])
    assert not sweep.run(Execution(cache="auto")).failed
    results, study = (read(sweep.folder / f) for read, f in ((read_results, "results.csv"), (read_study, "study.json")))
    assert [str(n) for n in results.numbers] == ["2", "3", "all"] and study.n == (2, 3, "all")
    assert {c["n"] for c in map(read_json, sweep.folder.glob("cells/E2E-all-*/summary.json"))} == {4, 5}
    assert study.settings["all"] == "4 to 5 labelled scans"
    target = [s for s in mean_scores(results, study) if s.test_set.role == "target"]
    assert [(str(s.n), len(s.persons), s.seeds) for s in target] == [(n, 6, 4) for n in ("2", "3", "all")]
    curves = learning_curves(results, study)
    assert all(isinstance(c, LearningCurve) and c.persons > 1 for c in curves.values()), curves
