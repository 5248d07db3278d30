"""A sweep end to end: what it writes, what it does again and what not, and that no shortcut changes the results."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.many_structures import HALVES, write_halves
from tests.studies.conftest import STUDY, MakeSweep
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.report.study_info import read_study
from tlseg_jax.report.sweep_report import write_report
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies import group as group_module
from tlseg_jax.studies import sweep as run_module
from tlseg_jax.studies.plan import plan_sweep
from tlseg_jax.studies.results_table import read_results
from tlseg_jax.studies.study import ADABN
from tlseg_jax.studies.sweep import Swept
from tlseg_jax.train import step_maker as step_maker_module
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.history import CurvePoints

pytestmark = pytest.mark.usefixtures("quick_compile")

AUTO, STREAMED = Execution(cache="auto"), Execution()


def scores(folder: Path) -> dict[tuple[str, str, str], float]:
    """(cell, test set, subject) -> IoU."""
    with (folder / "results.csv").open(newline="") as f:
        return {(r["cell"], r["test_set"], r["subject"]): float(r["iou"]) for r in csv.DictReader(f)}


def losses(folder: Path) -> dict[str, CurvePoints]:
    """Cell -> training loss by step."""
    out = {}
    for path in sorted(folder.glob("*/*/history.csv")):
        with path.open(newline="") as f:
            out[path.parent.name] = [(int(r["step"]), float(r["loss"])) for r in csv.DictReader(f) if r["loss"]]
    return out


def assert_same(a: Path, b: Path) -> None:
    one, two = losses(a), losses(b)
    assert one.keys() == two.keys()
    for cell in one:
        np.testing.assert_allclose(one[cell], two[cell], rtol=2e-4, err_msg=cell)
    first, second = scores(a), scores(b)
    assert first.keys() == second.keys()
    np.testing.assert_allclose([first[k] for k in first], [second[k] for k in first], atol=0.02)


def test_a_sweep_writes_a_row_a_cell_and_subject_and_is_done_once(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    built: list[Any] = []
    make = step_maker_module.make_train_step
    monkeypatch.setattr(step_maker_module, "make_train_step", lambda *a, **k: built.append(k) or make(*a, **k))
    sweep = make_sweep(seeds=1)
    swept: Swept = sweep.run(AUTO)
    assert not swept.failed
    # Pre-training, fine-tuning from kept features and end to end: a program each, whatever n.
    assert len(built) == 2  # end to end and pre-training are of one length here, and so of one program
    results = read_results(swept.folder / "results.csv")
    assert results.methods == ("FT", "E2E") and results.numbers == (2, 3)
    assert len(results.where(role="target")) == 2 * 2 * 2  # methods, n, subjects
    assert len(results.where(role="unseen")) == 8 and len(results.where(role="pretask")) == 2
    study = read_study(swept.folder / "study.json")
    assert not study.missing and not study.failed and study.stores.keys() == {"source", "target", "other"}
    assert sum("FT-n2-seed0: IoU target" in line for line in said) == 1
    assert not [line for line in said if "start:" in line or line.startswith("run:")]  # the cells' own lines
    before = (swept.folder / "results.csv").read_bytes()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished cell was trained again")

    monkeypatch.setattr(run_module, "train_and_assess", refuse)
    again = make_sweep(seeds=1).run(AUTO)
    assert len(again.done) == 5 and (swept.folder / "results.csv").read_bytes() == before
    assert sweep.left_out() == []
    assert make_sweep(n=[2], seeds=1).left_out() == ["E2E-n3-seed0", "FT-n3-seed0"]


def test_a_remedy_of_the_scoring_takes_its_baselines_training(make_sweep: MakeSweep) -> None:
    method = {"name": "FT", "pretask": "source", "freeze": "none"}
    both = make_sweep(n=[2], seeds=1, methods=[method | {"remedies": ["adabn", "ema"]}])
    assert [c.name for c in both.cells if both.trained_alike(c)] == ["FT-adabn-n2-seed0"]  # "ema" trains otherwise
    methods = [method | {"remedies": ["adabn"]}]
    swept = make_sweep(n=[2], seeds=1, methods=methods).run(AUTO, together=2)
    assert not swept.failed
    own, other = (read_json(swept.folder / "cells" / f"FT{r}-n2-seed0" / "summary.json") for r in ("-adabn", ""))
    assert own["weights"] == other["weights"] and own["train_seconds"] == other["train_seconds"]
    assert {e["adabn"] for e in own["test_sets"].values()} == {ADABN}
    assert all("adabn" not in e for e in other["test_sets"].values())
    assert len(make_sweep(n=[2], seeds=1, methods=methods).run(AUTO).done) == 3


@pytest.mark.slow
def test_a_sweep_of_several_structures_has_a_row_and_a_tab_for_each(
    make_sweep: MakeSweep, tmp_path: Path, said: list[str]
) -> None:
    store = tmp_path / "halves"
    for name, train, first in (("target", 2, 0), ("other", 0, 10)):
        spec = {"name": name, "split_group": name}
        write_halves(store / name, train=train, first=first, spec=spec)
    swept: Swept = make_sweep(store=store, n=[2], seeds=1, methods=[{"name": "E2E"}]).run(STREAMED)
    assert not swept.failed
    results = read_results(swept.folder / "results.csv")
    assert results.structures == HALVES and len(results) == 2 * 2 * 2  # data sets, halves, subjects
    assert {(r.test_set, r.data_set) for r in results} == {(f"{d}_{h}", d) for d in ("target", "other") for h in HALVES}
    mean = np.mean([r.iou for r in results.where(role="target")])
    assert any(f"target {mean:.3f} (mean of 2 structures), other" in line for line in said)
    assert read_study(swept.folder / "study.json").settings["structures"] == ", ".join(HALVES)
    page = write_report(swept.folder, tmp_path / "report", 6)
    assert {p.parent.name for p in page.parent.glob("figures/*/method_grid.png")} == set(HALVES)
    text = page.read_text(encoding="utf-8")
    assert text.count('class="panel"') == 3 and "Scans that cannot be shown" not in text
    assert text.count('class="viewer"') == 6  # worst, median and best over the halves of each data set


@pytest.mark.slow
def test_cells_scored_in_template_millilitres_are_scored_again_and_not_trained_again(make_sweep: MakeSweep) -> None:
    changes: dict[str, Any] = {"n": [2], "seeds": 1, "methods": [{"name": "E2E"}]}
    swept = make_sweep(**changes).run(AUTO)
    path = swept.folder / "cells" / "E2E-n2-seed0" / "summary.json"
    whole = read_json(path)
    old = {name: {k: v for k, v in e.items() if k != "mm"} for name, e in whole["test_sets"].items()}
    write_json(path, whole | {"test_sets": old})
    assert [d.cell.name for d in make_sweep(**changes).run(AUTO).done] == ["E2E-n2-seed0"]
    again = read_json(path)
    assert again["test_sets"] == whole["test_sets"] and again["train_seconds"] == whole["train_seconds"]


@pytest.mark.slow  # tests/train/test_feature_step.py compares them step by step
def test_features_data_on_the_device_and_streams_give_the_same(make_sweep: MakeSweep) -> None:
    changes: dict[str, Any] = {"n": [3], "seeds": 1}
    kept = make_sweep("a", **changes).run(AUTO)
    streamed = make_sweep("b", **changes).run(STREAMED)
    assert_same(kept.folder, streamed.folder)


@pytest.mark.slow
def test_cells_that_train_at_once_give_what_they_give_alone(make_sweep: MakeSweep) -> None:
    changes: dict[str, Any] = {"n": [2], "seeds": 2, "methods": STUDY["methods"][:1]}
    alone = make_sweep("a", **changes).run(AUTO, together=1)
    both = make_sweep("b", **changes).run(AUTO, together=2)
    assert_same(alone.folder, both.folder)


@pytest.mark.slow  # compiles a program for each number of cells that it tries
def test_how_many_train_at_once_is_measured_and_remembered(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "WORTH", 1)
    changes: dict[str, Any] = {"n": [2], "seeds": 3}
    alone = make_sweep("a", **changes).run(AUTO, together=1)
    measured = make_sweep("c", **changes).run(AUTO, together=None)
    assert_same(alone.folder, measured.folder)
    assert {v["together"] for v in read_json(measured.folder / "together.json").values()} <= {1, 2, 4, 8}


def test_cells_that_do_not_fit_at_once_are_named_with_the_remedy(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: Any) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")

    monkeypatch.setattr(group_module, "fit_together", run_out)
    swept = make_sweep(n=[2], seeds=2, methods=[{"name": "E2E"}]).run(AUTO, together=2)
    assert set(swept.failed) == {"E2E-n2-seed0", "E2E-n2-seed1"}
    assert "give a smaller `together`" in swept.failed["E2E-n2-seed0"]


@pytest.mark.slow
def test_what_fails_is_named_and_the_rest_goes_on(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(n=[2], seeds=2)
    # A run of other settings is in the way of one cell, and is not touched.
    taken = sweep.folder / "cells" / "E2E-n2-seed1"
    taken.mkdir(parents=True)
    write_json(taken / "settings.json", {"job": {"seed": 99}})
    swept = sweep.run(AUTO)
    assert list(swept.failed) == ["E2E-n2-seed1"] and "other settings" in swept.failed["E2E-n2-seed1"]
    assert {d.cell.name for d in swept.done} == {
        "source-seed0",
        "source-seed1",
        "FT-n2-seed0",
        "FT-n2-seed1",
        "E2E-n2-seed0",
    }
    study = read_study(swept.folder / "study.json")
    assert [cell for cell, _ in study.failed] == ["E2E-n2-seed1"]
    shutil.rmtree(taken)
    mended = make_sweep(n=[2], seeds=2).run(AUTO)
    assert not mended.failed and len(mended.done) == 6


def test_a_pretraining_that_fails_takes_its_cells_along_and_no_others(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_module.train_and_assess

    def fail_source(*args: Any, **kwargs: Any) -> Any:
        if args[3].name == "source-seed0":
            raise InputError("the scans are gone")
        return real(*args, **kwargs)

    monkeypatch.setattr(run_module, "train_and_assess", fail_source)
    swept = make_sweep(n=[2], seeds=1).run(AUTO)
    assert swept.failed == {"source-seed0": "the scans are gone", "FT-n2-seed0": "its pre-training source-seed0 failed"}
    assert [d.cell.name for d in swept.done] == ["E2E-n2-seed0"]


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_to_the_same_end(make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"n": [2], "seeds": 2, "methods": [{"name": "E2E"}]}
    whole = make_sweep("a", **changes).run(AUTO)
    real, calls = run_module.train_and_assess, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[3].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as m:
        m.setattr(run_module, "train_and_assess", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_sweep("b", **changes).run(AUTO)
    rest = make_sweep("b", **changes)
    assert read_study(rest.folder / "study.json").missing == ("E2E-n2-seed1",)
    done = rest.run(AUTO)
    assert scores(done.folder) == scores(whole.folder)


@pytest.mark.slow
def test_folds_hold_each_person_out_once_and_pretraining_never_sees_them(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(n=[2], seeds=3, folds=3)
    swept = sweep.run(AUTO)
    assert not swept.failed
    results = read_results(swept.folder / "results.csv")
    for method in ("FT", "E2E"):
        tested = [r.person for r in results.where(role="target", method=method)]
        assert sorted(tested) == sorted(f"person-{i}" for i in range(6))
    for fold in range(3):
        held = {r.person for r in results.where(role="target", seed=fold)}
        seen = {r.person for r in results.where(role="pretask") if r.fold == fold}
        assert held == seen  # what the pre-trained model of this fold is tested on is what its cells are tested on
    with pytest.raises(InputError, match="cannot be split 9 ways"):
        make_sweep(folds=9, seeds=2)


def test_the_plan_measures_and_writes_nothing(make_sweep: MakeSweep, said: list[str]) -> None:
    methods = [STUDY["methods"][0] | {"remedies": ["adabn"]}, STUDY["methods"][1]]
    sweep = make_sweep(n=[2, 50], methods=methods)
    plan_sweep(sweep, AUTO, 1)
    assert sum("to do" in line for line in said) == 9  # 2 seeds of source, 3 methods x 2 seeds, and the last line
    assert any(line.endswith("by the training of FT-n2-seed1") for line in said)
    assert "8 to do" in said[-1] and "Nothing was trained" in said[-1]
    assert not sweep.folder.exists()


def test_an_n_beyond_the_data_is_left_out_and_one_must_remain(make_sweep: MakeSweep) -> None:
    assert make_sweep(n=[2, 4, 5]).study.n == (2, 4)
    with pytest.raises(InputError, match="has 4 scans to train on"):
        make_sweep(n=[5])


def test_unseen_data_of_which_scans_train_are_refused_before_any_cell(make_sweep: MakeSweep, tmp_path: Path) -> None:
    assert make_sweep(unseen=["source"]).data.unseen  # its test persons train nowhere
    with pytest.raises(InputError, match=r"2 test subject\(s\) of source \(sub-4, sub-5\) were trained on.*`unseen`"):
        make_sweep(unseen=["source"], folds=2)
    assert not (tmp_path / "work" / "sweep").exists()


def test_a_scan_that_the_pretask_lacks_leaves_the_folds_as_they_are(small_stores: Path, make_sweep: MakeSweep) -> None:
    data = make_sweep(folds=3, seeds=3).data
    source = data.pretasks["source"]
    for gone in source.subjects():
        less = {s: r for s, r in source.manifest["subjects"].items() if s != gone}
        data.pretasks["source"] = source.with_manifest(source.manifest | {"subjects": less})
        data.cut.clear()
        for fold in range(3):
            held = data._fold(data.target, fold).subjects("test")
            assert data._fold(data.pretasks["source"], fold).subjects("test") == tuple(s for s in held if s != gone)
