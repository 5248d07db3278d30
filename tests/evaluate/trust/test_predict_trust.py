"""Predictions that are judged: the columns, the doubt beside the label map, and the page."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import csv_rows
from tests.evaluate.test_predict import CODES, SETTINGS, SPEC, bright, write_head
from tests.report.sweep_results import BRAIN, write_results
from tlseg_jax.evaluate.predict import Prediction, predict_scan
from tlseg_jax.evaluate.predict_folder import predict_folder
from tlseg_jax.evaluate.predict_once import Outcome
from tlseg_jax.evaluate.trust.passes import Pass, make_passes
from tlseg_jax.evaluate.trust.trusting import Trust, check_alike
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.report.trust_page import summary, worst_first, write_trust_page
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.ensemble import keep_ensemble, runs_of
from tlseg_jax.studies.results_table import read_results

TRUST = Trust([bright], make_passes(4, 0, True))


def judged(files: ScanFiles) -> Prediction:
    return predict_scan(files, SPEC, None, SETTINGS, bright, trust=TRUST)


def test_passes_that_change_nothing_give_the_prediction_itself(tmp_path: Path) -> None:
    files = write_head(tmp_path / "head.nii.gz", CODES["LAS"])
    plain = predict_scan(files, SPEC, None, SETTINGS, bright)
    same = predict_scan(files, SPEC, None, SETTINGS, bright, trust=Trust([bright], [Pass(), Pass(mirrored=True)]))
    assert plain.verdict is None and plain.doubt is None
    np.testing.assert_array_equal(same.label, plain.label)
    np.testing.assert_allclose(same.probability, plain.probability, atol=1e-6)
    assert same.verdict is not None and same.doubt is not None
    assert same.verdict.structures["ball"].agreement == pytest.approx(1) and same.doubt.max() == 0
    assert same.verdict.structures["ball"].low_ml == pytest.approx(same.volumes_ml["ball"])


def test_a_folder_gets_its_columns_doubts_and_page_and_is_not_made_again(tmp_path: Path) -> None:
    scans = [write_head(tmp_path / f"s{i}.nii.gz", CODES["LAS"]) for i in range(2)]
    head = np.asarray(nib.load(scans[1].image).dataobj)  # type: ignore[attr-defined]
    dark = np.minimum(head, 20) + np.linspace(0, 3, head.shape[0], dtype=np.float32)[:, None, None]
    nib.save(nib.Nifti1Image(dark, CODES["LAS"]), scans[1].image)  # no ball
    out, by_name = tmp_path / "out", {s.subject: s for s in scans}
    calls: list[str] = []

    def segment(files: ScanFiles) -> Prediction:
        calls.append(files.subject)
        return judged(files)

    def page(path: Path, outcomes: Sequence[Outcome]) -> None:
        write_trust_page(path, outcomes, by_name, None, {"model": "ball"})

    def run() -> tuple[Outcome, ...]:
        how = {"model": {"digest": "x"}, "trust": True, "progress": False}
        return predict_folder(scans, out, segment, page=page, **how)  # type: ignore[arg-type]

    outcomes = run()
    assert [o.subject for o in worst_first(outcomes)] == ["s1", "s0"]
    assert summary(outcomes) == "review these 1 of 2: s1"
    rows = {r["subject"]: r for r in csv_rows(out / "volumes.csv")}
    assert list(rows["s0"])[:4] == ["subject", "input", "output", "volume_ml"]
    assert float(rows["s0"]["ml_low"]) <= float(rows["s0"]["volume_ml"]) <= float(rows["s0"]["ml_high"])
    assert rows["s0"]["predicted_dice"] == "" and 0.5 < float(rows["s0"]["agreement"]) <= 1
    assert (rows["s0"]["review"], rows["s1"]["review"]) == ("no", "yes")
    assert rows["s1"]["reasons"] == "no ball was found"
    label, doubt = (
        np.asarray(nib.load(out / f"s0_seg{end}.nii.gz").dataobj)  # type: ignore[attr-defined]
        for end in ("", "_doubt")
    )
    assert doubt.shape == label.shape and 0 < doubt.max() <= 100
    text = (out / "trust.html").read_text()
    assert "Review these 1 of 2" in text and "no calibration" in text and "s0" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and len(text) < 15e6
    assert calls == ["s0", "s1"] and not any(o.anew for o in run()) and calls == ["s0", "s1"]
    (out / "s0_seg_doubt.nii.gz").unlink()
    assert [o.anew for o in run()] == [True, False]
    (out / "trust.html").write_text("mine")
    with pytest.raises(InputError, match=r"trust\.html is there and was not written"):
        run()


def test_only_models_of_one_grid_and_the_same_structures_predict_together() -> None:
    one = {"spec": SPEC.to_dict(), "prepare": SETTINGS.to_dict(), "patch_box": None}

    def check(second: dict[str, Any], channels: int = 1) -> None:
        pairs = ((one, 1), (second, channels))
        models: Any = [SimpleNamespace(description=d, config=SimpleNamespace(channels=c)) for d, c in pairs]
        check_alike(models, [Path("a"), Path("b")])

    check(one)
    other = one | {"spec": SPEC.changed(structures=("cube",)).to_dict()}
    with pytest.raises(InputError, match=r"^b and a cannot predict together, as they differ in structures: "):
        check(other)
    with pytest.raises(InputError, match="differ in prepare, channels"):
        check(one | {"prepare": {}}, 3)


def test_a_sweep_keeps_the_seeds_of_its_best_method(tmp_path: Path) -> None:
    write_results(tmp_path / "results.csv", BRAIN)
    kept = keep_ensemble(tmp_path)
    assert kept is not None and kept.n == 16 and len(set(kept.cells)) == 3
    results = read_results(tmp_path / "results.csv")
    means = {m: np.mean([r.iou for r in results.where(role="target", method=m, n=16)]) for m in results.methods}
    assert kept.method == max(means, key=lambda m: means[m]) and kept.iou == pytest.approx(means[kept.method])
    with pytest.raises(InputError, match="which is not there"):
        runs_of(tmp_path / "ensemble.json")
    for cell in kept.cells:
        (tmp_path / "cells" / cell).mkdir(parents=True)
    assert runs_of(tmp_path / "ensemble.json") == [tmp_path / "cells" / c for c in kept.cells]
