"""A factor study whose pre-training data are drawn from label maps, from the maps to what the report reads."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.input.label_heads import write_heads
from tests.studies.conftest import MakeSweep
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.datasets.factors import Levels
from tlseg_jax.input.synthesis import persons
from tlseg_jax.report.study_info import read_study
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.choose_study import Sweeping, choose_study
from tlseg_jax.studies.results_table import read_results
from tlseg_jax.studies.study import study_from_dict
from tlseg_jax.train.execution import Execution

FIRST, SECOND = Levels(), Levels("lateral ventricle", "AD", "native", "stripped", "registry", "automatic")
STUDY: dict[str, Any] = {
    "methods": [{"name": n, "pretask": x.name, "freeze": "none"} for n, x in (("A", FIRST), ("B", SECOND))],
    "n": [2],
    "seeds": 1,
    "steps": 2,
    "pretrain_steps": 2,
    "unseen": [],
    "cohort_spacing": 8.0,
    "cohort_train": 2,
}

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Heads of 144 mm, which lack the structures by which a map is registered and lie in MNI305 as they are."""
    as_it_is: Callable[..., Any] = lambda values, affine, name: (np.eye(4), {})  # noqa: E731
    monkeypatch.setattr(persons, "register_map", as_it_is)
    return write_heads(tmp_path / "heads", 4, mm=3.0)


@pytest.mark.slow
def test_a_study_of_two_data_sets_runs_and_says_what_they_are(make_sweep: MakeSweep, maps: Path) -> None:
    sweep = make_sweep(**STUDY, label_maps=str(maps))
    stores = sweep.data.pretasks
    assert [store.subjects(split) for store in stores.values() for split in ("test", "train")] == 2 * [
        ("seg_0", "seg_1"),
        ("seg_2", "seg_3"),
    ]
    swept = sweep.run(Execution())
    assert len(swept.done) == 4 and not swept.failed
    study, results = read_study(swept.folder / "study.json"), read_results(swept.folder / "results.csv")
    assert "drawn from label maps of real heads" in study.drawn and "mean nothing for patients" in study.drawn
    drawn = {r.synthetic for r in results if r.role == "pretask"}
    assert drawn == {True} and not results.synthetic and not study.synthetic  # the target's scans are nobody's drawing
    again = make_sweep(**STUDY, label_maps=str(maps))
    assert all(again.is_done(cell) for cell in again.runs)
    manifest = read_json(sweep.place.workdir / "store" / FIRST.name / "manifest.json")
    assert manifest["synthetic"] is True and manifest["spec"]["space"] == "MNI305"


def test_more_persons_than_maps(make_sweep: MakeSweep, maps: Path) -> None:
    with pytest.raises(InputError, match=r"12 persons are asked for.*holds 4 label maps"):
        make_sweep(**STUDY | {"cohort_train": 10}, label_maps=str(maps))


def test_label_maps_are_for_factor_studies(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`label_maps` is for the data sets of a factor study, and brain has none"):
        choose_study(Sweeping("brain"), {"label_maps": str(tmp_path)})
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "mine"\ntask = "hdt_c"\nn = [2]\nlabel_maps = "{tmp_path}"\n[[methods]]\nname = "E2E"\n')
    with pytest.raises(InputError, match="`label_maps` is for"):
        choose_study(Sweeping(str(file)), {})
    chosen = choose_study(Sweeping("factors"), {"label_maps": str(tmp_path)})
    assert chosen.label_maps == str(tmp_path)
    assert dataclasses.replace(chosen, label_maps=None) == choose_study(Sweeping("factors"), {})
    plain = {"name": "mine", "task": "hdt_c", "n": [2], "factors": {"design": "points"}}
    with pytest.raises(InputError, match="label_maps = 3 must be text"):
        study_from_dict(plain | {"label_maps": 3}, "here")
