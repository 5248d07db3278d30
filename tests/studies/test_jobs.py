"""The one builder of runs: what is usual for volumes and for slices, what goes with which, and what a run is called."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import pytest

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.cells import Cell, PretrainCell, cell_job
from tlseg_jax.studies.jobs import Phase, check_precision, make_job, make_pretrain_job, run_name
from tlseg_jax.studies.settings import Missing, Start, Training
from tlseg_jax.studies.study import Method, Study
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.losses import LOSSES
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.usual import COHORT_STEPS, PAPERS_FREEZE

CT, MRI, HEADS = (get_spec(name) for name in ("lits", "mri_artery", "hdt_c"))
DRAWN, STORE = Workplace(Path("runs")), Workplace(Path("runs"), Path("somewhere"))
NONE = Start("none")
REMEDIES: dict[str, Any] = {"l2sp": 0.01, "unfreezing": "staged", "randomisation": True}


def job(spec: DatasetSpec, phase: Phase = "finetune", training: Training = Training(), **values: Any) -> JobSettings:  # noqa: B008
    return make_job(DRAWN, spec, phase, dataclasses.replace(training, recipe_values=values))


def test_the_report_s_settings_are_the_paper_recipe_of_slices() -> None:
    training = Training(recipe="paper")
    before, after = job(CT, "pretrain", training), job(MRI, training=training)
    assert (before.recipe.learning_rate, before.recipe.batch_size, before.epochs) == (1e-4, 10, 5)
    assert (after.recipe.learning_rate, after.recipe.batch_size, after.epochs) == (5e-4, 18, 8)
    for made in (before, after):
        assert (made.recipe.loss, made.recipe.schedule, made.steps, made.sampling) == ("bce", "constant", None, "all")
        assert not (made.recipe.intensity_augmentation or made.recipe.affine_augmentation)
    assert before.network.name == "unet2d"
    assert (before.network.outputs, before.network.channels) == (("liver", "tumour"), 1)
    assert after.network.outputs == ("tumour",)


def test_volumes_have_a_network_a_recipe_and_a_length_of_their_own() -> None:
    made = job(HEADS)
    assert (made.network.name, made.network.dimensions, made.recipe.batch_size) == ("unet_fast", 3, 2)
    assert made.steps == COHORT_STEPS["finetune"]
    assert (job(MRI).network.name, job(MRI).freeze, job(MRI).recipe.loss) == (
        "unet2d_fast",
        "none",
        "cross_entropy_dice",
    )
    assert (made.epochs, made.watch_every) == (0, 0)
    assert make_job(STORE, HEADS, "pretrain", Training()).steps == made.recipe.pretrain_steps
    assert job(HEADS, training=Training(recipe="paper")).network.name == "switch8x2"
    assert make_job(STORE, CT, "pretrain", Training()).steps is None  # slices go by epochs there as here


def test_labels_of_one_structure_are_smoothed_and_of_several_only_if_asked() -> None:
    assert job(HEADS).recipe.label_smoothing == job(MRI).recipe.label_smoothing == 0.1
    assert job(CT).recipe.label_smoothing == 0
    assert job(CT, label_smoothing=0.2).recipe.label_smoothing == 0.2
    assert job(HEADS, training=Training(recipe="paper")).recipe.label_smoothing == 0


@pytest.mark.parametrize("spec", [CT, HEADS], ids=["slices", "volumes"])
def test_settings_reach_the_job(spec: DatasetSpec) -> None:
    values = {"learning_rate": 0.25, "batch_size": 3, "schedule": "cosine", "epsilon": 0.1, "epsilon_hat": True}
    training = Training(n=2, seed=7, steps=11, recipe_values=values | {"accumulate": 3}, input_workers=1)
    made = make_job(DRAWN, spec, "pretrain", training, Start("encoder", "batch", "reset"))
    r = made.recipe
    assert (r.learning_rate, r.batch_size, r.schedule, r.epsilon, r.epsilon_hat) == (0.25, 3, "cosine", 0.1, True)
    assert r.accumulate == 3
    found = (made.steps, made.n, made.seed, made.freeze, made.frozen_bn, made.head, made.workers)
    assert found == (11, 2, 7, "encoder", "batch", "reset", 1)


def test_slices_have_epochs_channels_and_sampling() -> None:
    made = job(CT, "pretrain", Training(epochs=4, slice_channels=3, sampling="balanced", watch_every=2))
    assert (made.epochs, made.sampling, made.watch_every) == (4, "balanced", 2)
    assert made.network.channels == 3


def test_every_loss_goes_with_either_kind_of_data() -> None:
    for spec in (HEADS, MRI):
        assert all(job(spec, loss=name).recipe.loss == name for name in LOSSES)
        with pytest.raises(InputError, match="`loss=focal` is no loss: choose from cross_entropy"):
            job(spec, loss="focal")


@pytest.mark.parametrize(
    ("spec", "training", "name"),
    [
        (HEADS, Training(epochs=3), "epochs"),
        (HEADS, Training(sampling="balanced"), "sampling"),
        (HEADS, Training(slice_channels=3), "slice_channels"),
        (HEADS, Training(watch_every=2), "watch_every"),
    ],
)
def test_what_would_do_nothing_is_refused(spec: DatasetSpec, training: Training, name: str) -> None:
    with pytest.raises(InputError, match=f"^`{name}` does not go with {spec.kind} such as {spec.name}: leave"):
        make_job(DRAWN, spec, "finetune", training)


def test_bfloat16_is_for_other_devices_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    half = make_job(DRAWN, HEADS, "finetune", Training(precision="bfloat16"))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    check_precision(half)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    check_precision(make_job(DRAWN, HEADS, "finetune", Training()))
    with pytest.raises(InputError, match=r"^`precision=bfloat16` is slower on a CPU and saves no memory there: leave"):
        check_precision(half)


def test_tiles_are_refused_of_slices() -> None:
    with pytest.raises(InputError, match=r"^`tiles` does not go with slices such as mri_artery"):
        make_job(dataclasses.replace(DRAWN, tiles="paper"), MRI, "finetune", Training())


@pytest.mark.parametrize(
    ("spec", "change", "says"),
    [
        (MRI, {"slice_channels": 2}, "`slice_channels=2` has no middle slice"),
        (
            MRI,
            {"network": "switch32"},
            "switch32 is 3D and mri_artery is a data set of slices: choose `network=unet2d_fast`",
        ),
        (HEADS, {"network": "unet2d"}, "unet2d is 2D and hdt_c is a data set of volumes: choose `network=unet_fast`"),
        (HEADS, {"network": "unet9"}, "no network named 'unet9'"),
        (MRI, {"recipe": "report"}, "no recipe for slices named 'report'"),
        (HEADS, {"recipe": "report"}, "no recipe named 'report'"),
        (MRI, {"n": 0}, "`n=0`: no labelled scan leaves nothing to train on: give 1 or more, or all; a pre-trained"),
        (MRI, {"recipe_values": {"learning_rte": 1.0}}, "changes 'learning_rte', which no recipe has"),
        (MRI, {"recipe_values": {"learning_rate": "fast"}}, "learning_rate = 'fast': a float is wanted"),
        (MRI, {"recipe_values": {"loss": "dice", "label_smoothing": 0.1}}, "cross-entropy, and `loss=dice` has none"),
        (HEADS, {"recipe_values": {"momentum": 0.9, "optimiser": "adam"}}, "is of Muon, and `optimiser=adam`: leave"),
        (MRI, {"recipe": "paper", "recipe_values": {"affine_strength": 2.0}}, "is of `affine_augmentation`, which is"),
    ],
)
def test_what_does_not_fit_is_one_sentence(spec: DatasetSpec, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        make_job(DRAWN, spec, "finetune", Training(**change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "training", "name"),
    [
        (MRI, Training(), "a-all-seed0"),
        (MRI, Training(network="unet2d_fast", recipe="default", sampling="all", slice_channels=1), "a-all-seed0"),
        (HEADS, Training(network="unet_fast", recipe_values={"accumulate": 1}), "a-all-seed0"),
        (HEADS, Training(recipe_values={"accumulate": 2}), "a-all-accumulate2-seed0"),
        (HEADS, Training(network="switch32", recipe="paper", seed=4), "a-all-switch32-paper-seed4"),
        (HEADS, Training(precision="bfloat16"), "a-all-bfloat16-seed0"),
        (
            MRI,
            Training(sampling="balanced", slice_channels=5, recipe_values={"loss": "dice"}),
            "a-all-dice-balanced-5channels-seed0",
        ),
        (HEADS, Training(recipe_values=REMEDIES), "a-all-l2sp0.01-staged-randomised-seed0"),
        (HEADS, Training(recipe_values={"l2sp": 0.0, "unfreezing": "at_once", "randomisation": False}), "a-all-seed0"),
    ],
)
def test_a_run_is_named_by_what_is_not_usual(spec: DatasetSpec, training: Training, name: str) -> None:
    assert run_name(spec, training, "a", "all") == name


def test_a_run_s_name_may_end_otherwise_and_leave_out_remedies() -> None:
    assert run_name(HEADS, Training(recipe_values=REMEDIES), "a", remedies=False) == "a-seed0"


def test_a_pre_training_is_on_all_scans_and_without_what_is_for_the_target() -> None:
    training = Training(n=2, seed=3, steps=9, validation=1, patience=4, recipe_values=REMEDIES | {"learning_rate": 0.3})
    first = make_pretrain_job(DRAWN, HEADS, training, Missing())
    assert (first.n, first.seed, first.steps, first.validation, first.patience) == (
        None,
        3,
        COHORT_STEPS["pretrain"],
        0,
        0,
    )
    assert first.recipe == get_recipe("default").override(learning_rate=0.3)
    assert make_pretrain_job(DRAWN, HEADS, training, Missing(pretrain_steps=5)).steps == 5


def test_of_slices_rate_and_batch_are_the_target_s_and_a_pre_training_has_its_own() -> None:
    training = Training(recipe="paper", recipe_values={"learning_rate": 0.3, "batch_size": 4, "loss": "dice"})
    first = make_pretrain_job(DRAWN, CT, training, Missing(pretrain_epochs=2))
    assert (first.recipe.learning_rate, first.recipe.batch_size, first.recipe.loss) == (1e-4, 10, "dice")
    assert first.epochs == 2
    rate = make_pretrain_job(DRAWN, CT, training, Missing(pretrain_learning_rate=0.5)).recipe.learning_rate
    assert rate == 0.5
    for missing in (Missing(pretrain_epochs=2), Missing(pretrain_learning_rate=0.5)):
        with pytest.raises(InputError, match=r"^`pretrain_\w+` does not go with volumes such as hdt_c"):
            make_pretrain_job(DRAWN, HEADS, training, missing)


@pytest.mark.parametrize("spec", [MRI, HEADS], ids=["slices", "volumes"])
def test_a_sweep_s_runs_are_those_of_the_single_commands(spec: DatasetSpec) -> None:
    """Of the same settings, a cell and `finetune`, and their pre-trainings, are the same run; a cell freezes what the
    papers do."""
    values = {"learning_rate": 0.3}
    method = Method("FT", "lits" if spec is MRI else "hdt_v", frozen_bn="batch", head="reset")
    study = Study("s", spec.name, (method,), (2,), recipe_values=values, steps=7, pretrain_steps=8)
    training = Training(n=2, seed=5, steps=7, recipe_values=values)
    alone = make_job(DRAWN, spec, "finetune", training, Start(PAPERS_FREEZE[spec.kind], "batch", "reset"))
    assert cell_job(study, Cell(method, 2, 5, None), DRAWN, spec, "float32") == alone
    first = make_pretrain_job(DRAWN, spec, training, Missing(pretrain_steps=8))
    assert cell_job(study, PretrainCell(method.pretask, 5, None), DRAWN, spec, "float32") == first
    end_to_end = dataclasses.replace(method, pretask="none")
    assert cell_job(study, Cell(end_to_end, 2, 5, None), DRAWN, spec, "float32").freeze == "none"
