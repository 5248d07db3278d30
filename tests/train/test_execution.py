"""However a run is executed, its losses and its model are the same; a run goes on under another execution."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.conftest import MakeStore, blob
from tests.train.power_cut import power_cut
from tests.train.slice_runs import NETWORK, small_job, small_store
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.models.lowering.choice import usual_lowering
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store, write_subject
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.train import job as job_module
from tlseg_jax.train import run as run_module
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.predictors import load_predictor
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.trainer import Fit, LoopSettings

pytestmark = pytest.mark.usefixtures("quick_compile", "quick_start")

CACHED, SEVERAL = Execution(cache="device"), Execution(steps_per_call=3)
BOTH = Execution(cache="device", steps_per_call=3)


def train(store: AnyStore, job: JobSettings, folder: Path, execution: Execution) -> Fit:
    with lock_folder(folder):
        return train_job(store, job, folder, execution=execution, progress=False)


def patch_job(network: UNetConfig, **given: Any) -> JobSettings:
    recipe = dataclasses.replace(
        get_recipe("paper"), loss="cross_entropy_dice", epsilon=1e-3, learning_rate=1e-2, intensity_augmentation=True
    )
    return JobSettings(network, recipe, **{"steps": 8, "checkpoint_every": 5} | given)


def assert_same_run(a: Fit, b: Fit) -> None:
    """To 1e-6 in the losses and 1e-4 in the parameters, which amplify the rounding of another fusion."""
    for curve in ("losses", "test_losses", "validation"):
        steps, values = np.array(getattr(a, curve)).reshape(-1, 2).T
        other_steps, other = np.array(getattr(b, curve)).reshape(-1, 2).T
        np.testing.assert_array_equal(steps, other_steps)
        np.testing.assert_allclose(values, other, rtol=2e-6, atol=1e-6)
    for x, y in zip(jax.tree.leaves(a.state), jax.tree.leaves(b.state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    return small_store(tmp_path_factory.mktemp("slices") / "store")


@pytest.mark.slow
def test_patches_give_the_same_run_however_they_are_sent(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a checkpoint that no number of steps divides: what is left over goes step by step."""
    calls: list[int] = []

    class Counted(Dispatch):
        def __call__(self, state: Any, batches: Any, done: int = 0) -> Any:
            calls.append(len(batches))
            return super().__call__(state, batches, done)

    job = patch_job(tiny_network, validation=1, validate_every=5)
    plain = train(tiny_store, job, tmp_path / "plain", Execution())
    assert [s for s, _ in plain.losses] == list(range(1, 9))
    assert_same_run(train(tiny_store, job, tmp_path / "cached", CACHED), plain)
    monkeypatch.setattr(job_module, "Dispatch", Counted)
    assert_same_run(train(tiny_store, job, tmp_path / "both", BOTH), plain)
    assert calls == [3, 1, 1, 3]


@pytest.mark.slow
def test_random_patches_of_volumes_of_several_shapes(
    make_store: MakeStore, tiny_network: UNetConfig, tmp_path: Path
) -> None:
    """Patches longer than the volumes on one axis and shorter on another; one volume is smaller than the others."""
    store = make_store(spec={"random_patch": True, "patch_size": [8, 24, 16]})
    write_subject(store.folder / "subjects" / "sub-1.zarr", *(v[:13, :15, 1:] for v in blob(1)))
    store.manifest["subjects"]["sub-1"]["shape"] = [13, 15, 15]
    job = patch_job(tiny_network, steps=4)
    plain = train(store, job, tmp_path / "plain", Execution())
    assert_same_run(train(store, job, tmp_path / "both", BOTH), plain)


@pytest.mark.slow
def test_slices_give_the_same_run_however_they_are_sent(slices: SliceStore, tmp_path: Path, said: list[str]) -> None:
    """With dropout, epochs that end at steps 4, 7 and 11, and a test loss after every third step."""
    job = small_job(epochs=3, watch_every=3)
    plain = train(slices, job, tmp_path / "plain", Execution())
    assert [s for s, _ in plain.test_losses] == [1, 3, 6, 9]
    for name, way in (("several", dataclasses.replace(SEVERAL, steps_per_call=8)), ("both", BOTH)):
        done = train(slices, job, tmp_path / name, way)
        assert_same_run(done, plain)
        assert [e["step"] for e in done.epochs] == [e["step"] for e in plain.epochs] == ["4", "7", "11"]
    assert said.count("steps in a call: 3, as the test loss is looked at every 3 (`watch_every`).") == 1


def test_a_run_keeps_its_form_of_convolution(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, said: list[str]
) -> None:
    """As `settings.json` has it, unless another is asked for; whether it is the same run is no matter of it."""

    def prepared(folder: str, **how: Any) -> run_module.Run:
        return run_module.prepare_run(
            tiny_store, patch_job(tiny_network), tmp_path / folder, execution=Execution(**how)
        )

    with lock_folder(tmp_path / "run"):
        run_module.claim_run(prepared("run", lowering="planes"))
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["lowering"] == "planes" and "convolutions: planes, as asked for" in said
    again = prepared("run")
    assert again.maker.lowering == "planes" and "convolutions: planes, as this run began" in said
    other = prepared("run", lowering="native")
    assert other.maker.lowering == "native" and other.key != again.key
    run_module.claim_run(other)  # it is the same run
    assert prepared("another").maker.lowering == usual_lowering()


@pytest.mark.slow
def test_a_run_goes_on_under_another_execution(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = patch_job(tiny_network)
    whole = train(tiny_store, job, tmp_path / "whole", Execution())

    with power_cut(5, monkeypatch):
        train(tiny_store, job, tmp_path / "cut", BOTH)
    rest = train(tiny_store, job, tmp_path / "cut", SEVERAL)
    assert rest.resumed_at == 5
    assert_same_run(rest, whole)


def test_what_the_host_looks_at_next() -> None:
    settings = LoopSettings(100, checkpoint_every=40, validate_every=25, epoch_ends=(33, 66, 99), watch_every=7)
    assert settings.next_look(0, True) == 1
    assert settings.next_look(0, False) == 25
    seen, step = [], 0
    while step < 100:
        step = settings.next_look(step, False)
        seen.append(step)
    assert seen == [25, 33, 40, 50, 66, 75, 80, 99, 100]
    assert [s for s in range(1, 101) if settings.saves(s)] == seen
    assert settings.next_look(35, True) == 40
    assert settings.next_look(36, True) == 40
    assert settings.next_look(50, True) == 56


def test_a_nan_is_named_by_its_own_step_of_a_call(
    make_store: MakeStore, tiny_network: UNetConfig, tmp_path: Path
) -> None:
    store = make_store(poison="sub-2")
    job = patch_job(tiny_network, checkpoint_every=3)
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, batch_size=1, intensity_augmentation=False))
    with pytest.raises(InputError, match=r"became nan at step \d, on sub-2: ") as e:
        train(store, job, tmp_path / "run", BOTH)
    step = int(str(e.value).split("step ")[1].split(",")[0])
    with (tmp_path / "run" / "history.csv").open(newline="") as f:
        assert len(list(csv.reader(f))) == step


def test_a_cache_that_does_not_fit_is_one_sentence(
    tiny_store: Store, slices: SliceStore, tiny_network: UNetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "cache_room", lambda *_: 3 * 4 * 16**3 - 1)
    with pytest.raises(
        InputError, match=r"^`cache=device` would hold 4.92e-05 GB of 4 scans .* give `cache=none`[^\n]*$"
    ):
        train(tiny_store, patch_job(tiny_network), tmp_path / "patches", CACHED)
    monkeypatch.setattr(run_module, "cache_room", lambda *_: 0)
    with pytest.raises(InputError, match=r"of 2 scans"):
        train(slices, small_job(), tmp_path / "slices", CACHED)
    job = patch_job(tiny_network, steps=1)
    train(tiny_store, job, tmp_path / "patches" / "again", Execution())


@pytest.mark.slow
def test_a_profile_of_some_steps(tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, said: list[str]) -> None:
    job = patch_job(tiny_network, steps=7)
    train(tiny_store, job, tmp_path / "run", Execution(profile=tmp_path / "trace"))
    (line,) = [s for s in said if s.startswith("trace of steps 3 to 6 of this call: ")]
    folder = Path(line.split("call: ")[1].split(". Open")[0])
    assert folder.is_relative_to(tmp_path / "trace")
    assert {"perfetto_trace.json.gz"} < {p.name for p in folder.iterdir()}
    train(tiny_store, job, tmp_path / "run", Execution(profile=tmp_path / "none"))
    assert said[-1].startswith("`profile`: no trace, since this call did 0 step(s)")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_bfloat16_trains_resumes_and_predicts(tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path) -> None:
    network = dataclasses.replace(tiny_network, dtype="bfloat16")
    way = dataclasses.replace(BOTH, remat="block")
    first = train(tiny_store, patch_job(network, steps=6, checkpoint_every=6), tmp_path / "run", way)
    assert train(tiny_store, patch_job(network, steps=6, checkpoint_every=6), tmp_path / "run", way).resumed_at == 6
    assert {x.dtype.name for x in jax.tree.leaves(first.state.params)} == {"float32"}
    saved = load_model(tmp_path / "run")
    assert saved.config.dtype == "bfloat16"
    image = tiny_store.image("sub-5").astype(np.float32)[None]
    found = load_predictor(saved)(image)
    assert (found.dtype, found.shape) == (np.float32, image.shape)
    exact = load_predictor(dataclasses.replace(saved, config=dataclasses.replace(saved.config, dtype="float32")))(image)
    # Where two voxels of a cell are all but equal, rounding decides which of them a switch takes.
    assert np.mean(np.abs(found - exact) < 0.02) > 0.99


@pytest.mark.slow
def test_bfloat16_slices(slices: SliceStore, tmp_path: Path) -> None:
    job = small_job(dataclasses.replace(NETWORK, dtype="bfloat16"))
    done = train(slices, job, tmp_path / "run", BOTH)
    assert np.isfinite([v for _, v in done.losses]).all()
    image = slices.volume_image(slices.subjects("test")[0]).astype(np.float32)
    assert load_predictor(load_model(tmp_path / "run"))(image).dtype == np.float32
