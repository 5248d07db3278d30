"""Trust of a run: its scans are scored as `evaluate` scores them, and what is exported carries its calibration."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.trust.test_calibration import drawn
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.evaluate.results import evaluate_store
from tlseg_jax.evaluate.trust.calibration import calibrate
from tlseg_jax.evaluate.trust.passes import Pass
from tlseg_jax.evaluate.trust.trust_file import load_calibration, save_calibration
from tlseg_jax.export.load import load_any_model
from tlseg_jax.export.model_folder import export_model
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.calibrate_trust import calibrate_trust, members_of, pass_store
from tlseg_jax.train.predictors import load_predictor


def test_passes_that_change_nothing_score_as_evaluate_does(volume_run: Path, tiny_store: Any) -> None:
    saved = load_model(volume_run)
    members = members_of([saved], [volume_run])
    how = {"split": "test", "progress": False}
    ran = pass_store(members, tiny_store, [Pass(), Pass()], clean=False, allow_seen=True, **how)  # type: ignore[arg-type]
    results = evaluate_store(tiny_store, "test", members.spec, members.box, load_predictor(saved), progress=False)
    ((structure, rows),) = results.rows.items()
    assert [r.subject for r in ran] == [r.subject for r in rows] and rows
    for ours, theirs in zip(ran, rows, strict=True):
        assert ours.row.dice[structure] == pytest.approx(theirs.score.dice)
        assert ours.row.found[structure].ml == pytest.approx(theirs.score.predicted_ml)
        assert ours.row.reference_ml[structure] == pytest.approx(theirs.score.reference_ml)
        assert ours.row.found[structure].agreement == 1
        assert (ours.plain == ours.mean).all()
    if len(ran) < 5:
        with pytest.raises(InputError, match="too few to calibrate"):
            calibrate_trust(members, [tiny_store], passes=2, allow_seen=True, progress=False)


def test_an_export_carries_the_calibration_of_its_run(volume_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(volume_run, run)
    export_model(run, tmp_path / "before", platforms=())
    assert not (tmp_path / "before" / "trust.json").exists()
    calibration = calibrate(drawn(8), 8, 0, "scan")
    save_calibration(run, [load_any_model(run).weights], calibration)
    for _ in range(2):
        export_model(run, tmp_path / "before", platforms=())
        assert load_calibration(tmp_path / "before", [load_any_model(tmp_path / "before").weights]) == calibration
