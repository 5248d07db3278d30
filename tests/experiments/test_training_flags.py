"""The flags of training as settings: what is usual for volumes and for slices, and what goes with which."""

from collections.abc import Iterator

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import training_flags
from tlseg_jax.datasets.lookup import get_any_spec
from tlseg_jax.datasets.spec import AnySpec
from tlseg_jax.models.unet2d import SliceUNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.losses import LOSSES
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.remedies import without_remedies
from tlseg_jax.train.slice_losses import SLICE_LOSSES

CT, MRI, HEADS = (get_any_spec(name) for name in ("lits", "mri_artery", "hdt_c"))


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with flagsaver.flagsaver():
        yield


def given(*arguments: str) -> None:
    flags.FLAGS(["command", *arguments])


def test_the_report_s_settings_are_usual_for_slices() -> None:
    given()
    before, after = training_flags.job(CT, "pretrain", None), training_flags.job(MRI, "finetune", None)
    assert (before.recipe.learning_rate, before.recipe.batch_size, before.epochs) == (1e-4, 10, 5)
    assert (after.recipe.learning_rate, after.recipe.batch_size, after.epochs) == (5e-4, 18, 8)
    for job in (before, after):
        assert (job.recipe.loss, job.recipe.schedule, job.steps, job.sampling) == ("bce", "constant", None, "all")
        assert not (job.recipe.intensity_augmentation or job.recipe.affine_augmentation)
    assert isinstance(before.network, SliceUNetConfig)
    assert (before.network.outputs, before.network.channels) == (("liver", "tumour"), 1)
    assert after.network.outputs == ("tumour",)  # type: ignore[union-attr]


def test_volumes_have_a_network_a_recipe_and_a_length_of_their_own() -> None:
    given()
    job = training_flags.job(HEADS, "finetune", None)
    assert (job.network.name, job.network.dimensions, job.recipe.batch_size) == ("switch8x2", 3, 2)
    assert job.steps == training_flags.COHORT_STEPS["finetune"]
    assert (job.epochs, job.watch_every) == (0, 0)
    given("--store=somewhere")
    assert training_flags.job(HEADS, "pretrain", None).steps == job.recipe.pretrain_steps
    assert training_flags.job(CT, "pretrain", None).steps is None  # slices go by epochs there as here


@pytest.mark.parametrize("spec", [CT, HEADS], ids=["slices", "volumes"])
def test_flags_change_the_recipe(spec: AnySpec) -> None:
    given("--learning_rate=0.25", "--batch_size=3", "--schedule=cosine", "--epsilon=0.1", "--epsilon_hat", "--seed=7",
          "--accumulate=3")  # fmt: skip
    job = training_flags.job(spec, "pretrain", 11, n=2, freeze="encoder", frozen_bn="batch", head="reset")
    r = job.recipe
    assert (r.learning_rate, r.batch_size, r.schedule, r.epsilon, r.epsilon_hat) == (0.25, 3, "cosine", 0.1, True)
    assert r.accumulate == 3
    assert (job.steps, job.n, job.seed, job.freeze, job.frozen_bn, job.head) == (11, 2, 7, "encoder", "batch", "reset")


def test_slices_have_epochs_channels_and_sampling() -> None:
    given("--slice_channels=3", "--sampling=balanced", "--watch_every=2")
    job = training_flags.job(CT, "pretrain", None, epochs=4)
    assert (job.epochs, job.sampling, job.watch_every) == (4, "balanced", 2)
    assert job.network.channels == 3  # type: ignore[union-attr]


def test_every_loss_goes_with_its_own_kind_of_data() -> None:
    for name in {*LOSSES, *SLICE_LOSSES}:
        for spec, table in ((HEADS, LOSSES), (MRI, SLICE_LOSSES)):
            given(f"--loss={name}")
            if name in table:
                assert training_flags.recipe(spec, "finetune").loss == name
            else:
                with pytest.raises(InputError, match=f"--loss={name} does not go with {spec.kind} such as {spec.name}"):
                    training_flags.recipe(spec, "finetune")


@pytest.mark.parametrize(("spec", "flag"), [
    (HEADS, "--epochs=3"), (HEADS, "--sampling=balanced"), (HEADS, "--slice_channels=3"), (HEADS, "--watch_every=2"),
    (MRI, "--intensity_augmentation"), (MRI, "--nointensity_augmentation"), (MRI, "--affine_augmentation"),
    (MRI, "--distances"), (MRI, "--tiles=paper"),
])  # fmt: skip
def test_a_flag_that_would_do_nothing_is_refused(spec: AnySpec, flag: str) -> None:
    given(flag)
    name = flag.strip("-").split("=")[0].removeprefix("no")
    with pytest.raises(InputError, match=f"--{name} does not go with {spec.kind} such as {spec.name}: leave it out"):
        training_flags.job(spec, "finetune", None)


@pytest.mark.parametrize(("spec", "flag", "says"), [
    (MRI, "--slice_channels=2", "--slice_channels=2 has no middle slice"),
    (MRI, "--network=switch32", "switch32 is 3D and mri_artery is a data set of slices: choose --network=unet2d"),
    (HEADS, "--network=unet2d", "unet2d is 2D and hdt_c is a data set of volumes: choose --network=switch8x2"),
    (HEADS, "--network=unet9", "no network named 'unet9'"),
    (MRI, "--recipe=paper", "no recipe for slices named 'paper'"),
    (HEADS, "--recipe=report", "no recipe named 'report'"),
])  # fmt: skip
def test_what_does_not_fit_is_one_sentence(spec: AnySpec, flag: str, says: str) -> None:
    given(flag)
    with pytest.raises(InputError, match=says) as caught:
        training_flags.job(spec, "finetune", None)
    assert "\n" not in str(caught.value)


def test_n_below_one_is_refused() -> None:
    given()
    with pytest.raises(InputError, match="--n=0"):
        training_flags.job(MRI, "finetune", None, n=0)


@pytest.mark.parametrize(("spec", "arguments", "name"), [
    (MRI, (), "a-all-seed0"),
    (MRI, ("--network=unet2d", "--recipe=default", "--sampling=all", "--slice_channels=1"), "a-all-seed0"),
    (HEADS, ("--network=switch8x2", "--accumulate=1"), "a-all-seed0"),
    (HEADS, ("--accumulate=2",), "a-all-accumulate2-seed0"),
    (HEADS, ("--network=switch32", "--recipe=paper", "--seed=4"), "a-all-switch32-paper-seed4"),
    (MRI, ("--loss=dice", "--sampling=balanced", "--slice_channels=5"), "a-all-dice-balanced-5channels-seed0"),
])  # fmt: skip
def test_a_run_is_named_by_what_is_not_usual(spec: AnySpec, arguments: tuple[str, ...], name: str) -> None:
    given(*arguments)
    assert training_flags.run_name(spec, "a", "all") == name


REMEDIES = ("--l2sp=0.010", "--unfreezing=staged", "--randomisation")


def test_remedies_reach_the_recipe_and_the_run_s_name() -> None:
    given(*REMEDIES)
    r = training_flags.job(HEADS, "finetune", None).recipe
    assert (r.l2sp, r.unfreezing, r.randomisation) == (0.01, "staged", True)
    assert training_flags.run_name(HEADS, "a") == "a-l2sp0.01-staged-randomised-seed0"
    assert training_flags.run_name(HEADS, "a", remedies=False) == "a-seed0"
    assert without_remedies(r) == get_recipe("default")


def test_slices_have_all_remedies_but_randomisation() -> None:
    given(*REMEDIES[:2])
    r = training_flags.job(MRI, "finetune", None).recipe
    assert (r.l2sp, r.unfreezing, r.randomisation) == (0.01, "staged", False)
    assert training_flags.run_name(MRI, "a") == "a-l2sp0.01-staged-seed0"
    given("--randomisation")
    with pytest.raises(InputError, match="--randomisation does not go with slices"):
        training_flags.job(MRI, "finetune", None)


def test_no_remedy_is_the_default_and_says_nothing() -> None:
    given("--l2sp=0", "--unfreezing=at_once", "--norandomisation")
    assert training_flags.run_name(HEADS, "a") == "a-seed0"
    assert training_flags.job(HEADS, "finetune", None).recipe == get_recipe("default")


def test_a_run_s_name_may_end_otherwise() -> None:
    given("--seed=3")
    assert training_flags.run_name(MRI, "a", ending="seeds5") == "a-seeds5"


def test_the_workplace_is_the_flags() -> None:
    given("--workdir=w", "--cohort_train=2", "--cohort_test=1", "--workers=1", "--distances", "--tiles=paper")
    place = training_flags.workplace()
    assert (str(place.workdir), place.store, place.cohort_train, place.cohort_test) == ("w", None, 2, 1)
    assert (place.workers, place.distances, place.tiles) == (1, True, "paper")
