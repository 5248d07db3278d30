"""Studies as data: the built-in ones, a user's file, and what is wrong with one, in a sentence."""

import dataclasses
from pathlib import Path

import pytest

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.cells import Cell, PretrainCell, cell_job, cells_of, pretraining_of
from tlseg_jax.studies.study import REMEDIES, Method, Study, read_study_file, study_from_dict
from tlseg_jax.studies.workplace import Workplace

PLACE = Workplace(Path("runs"), Path("store"))
STUDIES = Path(__file__).parents[2] / "experiments" / "studies"
MINIMAL = {"name": "mine", "task": "hdt_c", "n": [2, "all"], "methods": [{"name": "FT", "pretask": "hdt_v"}]}


def test_the_papers_grids() -> None:
    """Weatheritt et al. section 4: four methods by nine n; Wang & Tang section 3.2.3: models A, B and C."""
    brain = read_study_file(STUDIES / "brain.toml")
    papers = [m for m in brain.methods if not m.remedy]
    assert [(m.name, m.pretask) for m in papers] == [
        ("MAL-C-FT", "mal_c"),
        ("HDT-V-FT", "hdt_v"),
        ("HDT-WB-FT", "hdt_wb"),
        ("HDT-C-E2E", "none"),
    ]
    assert brain.n == (2, 4, 8, 16, 32, 64, 128, 256, 306) and brain.seeds == 5 and brain.unseen == ("oas_c",)
    liver = read_study_file(STUDIES / "liver.toml")
    spec = get_spec("mri_artery")
    jobs = {m.name: cell_job(liver, Cell(m, 2, 0, None), PLACE, spec, "float32") for m in liver.methods}
    assert {k: j.freeze for k, j in jobs.items()} == {"A": "none", "B": "none", "C": "first_two"}
    # Section 3.2.2: batches of 18, rate 5e-4 on the target.
    assert {(j.recipe.batch_size, j.recipe.learning_rate) for j in jobs.values()} == {(18, 5e-4)}
    first = cell_job(liver, PretrainCell("lits", 0, None), PLACE, get_spec("lits"), "float32")
    assert first.recipe.learning_rate == 1e-4
    assert liver.n == (1, 2, 4, 8, None)


def test_a_factor_study_has_a_method_for_each_point_of_its_design() -> None:
    study = read_study_file(STUDIES / "factors.toml")
    assert len(study.methods) == 33  # half of 2^6, and MAL-C's twin in MNI305 space, which the half lacks
    points = [tuple(m.factors.values()) for m in study.methods]
    assert len(set(points)) == 33
    native = ("caudate", "AD", "native", "kept", "registry", "automatic")
    assert study.pretasks == tuple(m.name for m in study.methods) and {m.freeze for m in study.methods} == {"encoder"}
    assert native in points and ("caudate", "AD", "MNI305", *native[3:]) in points


def test_cells_come_n_by_n_and_seeds_go_round_the_folds() -> None:
    study = study_from_dict(MINIMAL | {"seeds": 3, "folds": 2}, "here")
    cells = cells_of(study)
    assert [(c.n, c.seed, c.fold) for c in cells] == [(n, s, s % 2) for n in (2, None) for s in range(3)]
    assert [c.name for c in cells[2:4]] == ["FT-n2-seed2", "FT-all-seed0"]
    assert {pretraining_of(c) for c in cells} == {PretrainCell("hdt_v", s, s % 2) for s in range(3)}
    assert pretraining_of(dataclasses.replace(cells[0], method=Method("E2E"))) is None


def test_a_method_may_start_from_a_model_that_is_there() -> None:
    methods = [{"name": "BOX", "pretrained": "brain", "freeze": "none", "remedies": ["ema"]}, {"name": "E2E"}]
    study = study_from_dict(MINIMAL | {"methods": methods}, "here")
    assert [(m.name, m.pretask, m.pretrained) for m in study.methods] == [
        ("BOX", "brain", "brain"),
        ("BOX-ema", "brain", "brain"),
        ("E2E", "none", ""),
    ]
    assert study.pretasks == () and not any(pretraining_of(c) for c in cells_of(study))
    for c in cells_of(study)[:2]:
        assert cell_job(study, c, PLACE, get_spec("hdt_c"), "float32").freeze == "none"
    with pytest.raises(InputError, match="method 1 has a pretask and a pretrained model"):
        study_from_dict(MINIMAL | {"methods": [methods[0] | {"pretask": "hdt_v"}]}, "here")


def test_a_remedy_is_a_method_that_differs_in_itself_only() -> None:
    changes = {
        "staged": ("none", "unfreezing"),
        "l2sp": ("none", "l2sp"),
        "randomised": ("encoder", "randomisation"),
        "warmup_all": ("none", "unfreezing"),
        "layerwise": ("none", "layer_decay"),
        "norm_only": ("norm_only", ""),
        "ema": ("encoder", "ema"),
        "mix_synthetic": ("encoder", "mix_synthetic"),
        "adabn": ("encoder", ""),
    }
    assert changes.keys() == REMEDIES.keys()
    methods = [{"name": "FT", "pretask": "hdt_v", "remedies": list(changes)}]
    study = study_from_dict(MINIMAL | {"methods": methods}, "here")
    spec = get_spec("hdt_c")
    plain, *others = (cell_job(study, Cell(m, 2, 0, None), PLACE, spec, "float32") for m in study.methods)
    assert [(m.name, m.baseline) for m in study.methods[1:]] == [(f"FT-{name}", "FT") for name in changes]
    assert plain.freeze == "encoder"
    for job, (freeze, changed) in zip(others, changes.values(), strict=True):
        assert job.freeze == freeze
        usual = {changed: getattr(plain.recipe, changed)} if changed else {}
        assert (job.recipe == plain.recipe) == (not changed)
        assert dataclasses.replace(job.recipe, **usual) == plain.recipe
        assert dataclasses.replace(job, recipe=plain.recipe, freeze=plain.freeze) == plain


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metods": []}, "did you mean methods"),
        ({"n": []}, "whole numbers"),
        ({"n": [-1]}, "give 1 or more, or all"),
        ({"n": [2, 0]}, "no labelled scan leaves nothing to train on: give 1 or more, or all"),
        ({"n": ["most"]}, "'most' is no number of labelled scans"),
        ({"n": [True]}, "whole numbers"),
        ({"seeds": "3"}, "seeds"),
        ({"seeds": 0}, "1 or more"),
        ({"methods": []}, "no methods"),
        ({"methods": [{"pretask": "hdt_v"}]}, "lacks the field 'name'"),
        ({"methods": [{"name": "a b"}]}, "names a folder"),
        ({"methods": [{"name": "FT", "freeze": "all"}]}, "freeze = 'all' must be one of encoder, .*none"),
        ({"methods": [{"name": "FT", "remedies": ["l2sp"]}]}, "no pretask"),
        (
            {"methods": [{"name": "FT", "pretask": "hdt_v", "remedies": ["magic"]}]},
            "method 1: There is no remedy named 'magic'",
        ),
        ({"titles": {"answer": 5}}, "titles.answer = 5 must be text"),
        ({"methods": [{"name": "FT"}, {"name": "FT"}]}, "two methods are named 'FT'"),
        ({"methods": [], "factors": {"design": "third"}}, "no design named 'third'"),
    ],
)
def test_what_is_wrong_with_a_study_is_named(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        study_from_dict(MINIMAL | change, "mine.toml")


@pytest.mark.parametrize(("text", "says"), [(None, "does not exist"), ("name = ", "cannot be read")])
def test_a_file_that_is_no_study(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_study_file(path)


def test_a_value_that_no_recipe_has() -> None:
    study = Study("mine", "hdt_c", (Method("E2E"),), (2,), recipe_values={"learning_rte": 0.1})
    with pytest.raises(InputError, match="learning_rte"):
        cell_job(study, cells_of(study)[0], PLACE, get_spec("hdt_c"), "float32")
    study = dataclasses.replace(study, recipe_values={"learning_rate": "fast"})
    with pytest.raises(InputError, match="float is wanted"):
        cell_job(study, cells_of(study)[0], PLACE, get_spec("hdt_c"), "float32")
