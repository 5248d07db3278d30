"""export and predict as a user calls them: a scan segmented by a run, by its exported folder and by the program."""

import csv
import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import SIDE, blob, he_variables, write_store
from tests.export.conftest import save_run
from tests.processes import python
from tlseg_jax.actions.evaluate import Scoring, evaluate
from tlseg_jax.actions.model import Inferring, Model
from tlseg_jax.actions.places import Named
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.evaluate.predict import predict_scan
from tlseg_jax.evaluate.tta import averaged
from tlseg_jax.export.load import load_any_model
from tlseg_jax.geometry import Box
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe


def command(*args: str, code: int = 0, **environment: str) -> str:
    done = python("-m", *args, **environment)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_network: UNetConfig) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    job = JobSettings(tiny_network, dataclasses.replace(get_recipe("default"), learning_rate=1e-2), 2)
    return save_run(write_store(folder / "store"), job, folder / "run", he_variables)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "blob.nii.gz"
    nib.save(nib.Nifti1Image(blob(11)[0].astype(np.float32), np.eye(4)), path)
    return path


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("exported") / "model"
    return folder, command("experiments.export", f"--run={run}", f"--output={folder}", "--licence=CC BY 4.0")


def segmented(model: Path, scan: Path, output: Path) -> np.ndarray:
    # One pass: the mean of several marks nothing of what this run, which hardly trained, is nowhere sure of.
    said = command("experiments.predict", f"--run={model}", f"--input={scan}", f"--output={output}", "--notta")
    assert f"{output}: blob " in said
    return np.asarray(nib.load(output).dataobj) > 0


def expected(run: Path, scan: Path) -> np.ndarray:
    """What the library makes of the run and the scan, in this process."""
    model = load_any_model(run)
    d = model.description
    found = predict_scan(
        ScanFiles("blob", scan),
        spec_from_dict(d["spec"], "here"),
        Box.from_dict(d["patch_box"]),
        PrepareSettings.from_dict(d["prepare"]),
        model.predictor(),
        smallest=d["smallest_pieces"],
    )
    assert 0 < found.label.sum() < SIDE**3
    return found.label > 0


def test_a_model_averages_passes_unless_told_not_to_and_is_another_then(run: Path) -> None:
    model, patch = load_any_model(run), blob(11)[0].astype(np.float32)[None]
    usual, once = Model.of([run]), Model.of([run], Inferring(tta=False))
    np.testing.assert_array_equal(usual.together(patch), averaged(model.predictor(), usual.spec)(patch))
    np.testing.assert_array_equal(once.together(patch), model.predictor()(patch))
    assert np.abs(usual.together(patch) - once.together(patch)).max() > 1e-3
    assert usual.identity == once.identity | {"tta": True}  # so what one segmented is made anew by the other
    with pytest.raises(InputError, match="`notta` goes without `trust`"):
        Model.of([run], Inferring(tta=False, trust=True))


def test_an_exported_program_segments_as_the_run_does(
    run: Path, scan: Path, exported: tuple[Path, str], tmp_path: Path
) -> None:
    model, said = exported
    assert "licence CC BY 4.0" in said and f"--run={model}" in said
    card = json.loads((model / "card.json").read_text())
    assert card["licence"] == "CC BY 4.0" and card["program"]["platforms"] == ["cpu", "cuda", "tpu"]
    label = segmented(model / "model.stablehlo", scan, tmp_path / "seg.nii.gz")
    assert np.array_equal(label, expected(run, scan))


def test_an_exported_model_is_scored_as_the_run_is_and_stays_as_it_was(
    run: Path, exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, store = exported[0], run.parent / "store"
    before = {p: p.stat().st_mtime_ns for p in model.rglob("*")}
    for scored in (run, model):
        evaluate(Named(str(scored), store.name, str(store.parent)), Scoring(allow_seen=True))
    assert {p: p.stat().st_mtime_ns for p in model.rglob("*")} == before
    (kept,) = (tmp_path / "runs/evaluate").iterdir()
    of_model, of_run = (
        [(r["subject"], r["iou"]) for r in csv.DictReader((f / "subjects.csv").read_text().splitlines())]
        for f in (kept, run)
    )
    assert of_model == of_run and len(of_run) == 2


def test_data_at_another_spacing_are_refused_in_the_name_of_the_model(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny_store.folder
    with pytest.raises(InputError, match=r"1x1x1 mm and the model of whole_brain was trained at 3x3x3 mm: prepare it"):
        evaluate(Named("whole_brain", folder.name, str(folder.parent)), Scoring())


@pytest.mark.slow
def test_all_three_segment_alike(run: Path, scan: Path, exported: tuple[Path, str], tmp_path: Path) -> None:
    for model in (run, exported[0], exported[0] / "model.stablehlo"):
        assert np.array_equal(segmented(model, scan, tmp_path / "seg.nii.gz"), expected(run, scan))


@pytest.mark.slow
def test_faults_are_one_sentence(run: Path, exported: tuple[Path, str], tmp_path: Path) -> None:
    model, _ = exported
    assert "there already" in command("experiments.export", f"--run={run}", f"--output={model}", "--licence=CC BY 4.0")
    for arguments, fault in (
        ((f"--run={run}", f"--output={run}"), "is no export of this run"),
        ((f"--run={run}", f"--output={tmp_path / 'm'}", "--platforms=gpu"), "choose from cpu, cuda, tpu"),
        ((f"--run={run}", "--output=s3://bucket/model"), "give a local folder"),
        ((f"--output={tmp_path / 'm'}",), "--run is missing"),
        ((f"--run={tmp_path}", f"--output={tmp_path / 'm'}"), "no trained model"),
    ):
        error = command("experiments.export", *arguments, code=2)
        assert error.startswith("error: ") and error.count("\n") == 1 and fault in error
    given = {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    error = command("experiments.export", f"--run={run}", f"--output={tmp_path / 'm'}", code=2, **given)
    assert "done by one process" in error
    assert not (tmp_path / "m").exists()
    damaged = model / "model.stablehlo"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    error = command("experiments.predict", f"--run={damaged}", "--input=a.nii", "--output=b.nii", code=2)
    assert f"{damaged} is not as it was exported" in error and error.count("\n") == 1
