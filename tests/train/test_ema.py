"""Averaged weights against the same average by NumPy, and what a run saves, resumes and validates by."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.conftest import blob, he_variables
from tests.train.power_cut import power_cut
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.checkpoints.state import TrainState, init_state
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train import run as run_module
from tlseg_jax.train import task_data as task_data_module
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.run import prepare_run
from tlseg_jax.train.step import make_train_step
from tlseg_jax.train.together import fit_together
from tlseg_jax.train.trainer import Fit
from tlseg_jax.transfer.freeze import get_rules, label_parameters

pytestmark = pytest.mark.usefixtures("quick_compile")

DECAY = 0.3
"""Above what the first three steps are averaged by, below what the later ones would be."""


def equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_is_the_average_by_numpy_and_what_is_frozen_is_not_touched(tiny_network: UNetConfig) -> None:
    variables = he_variables(tiny_network)
    labels = label_parameters(variables["params"], get_rules("encoder"))
    recipe = get_recipe("default").override(ema=DECAY)
    optimiser = make_optimiser(recipe, 6, labels)
    images, masks = zip(*(blob(i) for i in range(2)), strict=True)
    batch = {"image": np.stack(images).astype(np.float32), "label": np.stack(masks)}
    step = make_train_step(tiny_network, optimiser, label_loss("cross_entropy_dice"), labels, ema=recipe.ema)
    state = init_state(jax.tree.map(jnp.array, variables), optimiser, average=True)
    expected = flatten_dict(jax.tree.map(np.float64, variables))
    for count in range(6):
        state, _ = step(state, batch)
        kept = min(DECAY, (1 + count) / (10 + count))
        now = flatten_dict({"params": state.params, "batch_stats": state.batch_stats})
        expected = {k: kept * v + (1 - kept) * np.float64(now[k]) for k, v in expected.items()}
    found = flatten_dict(state.model)
    frozen = {k for k in found if k[1].startswith(("encoder", "bottleneck"))}
    assert len(frozen) > 6 and len(found) > 2 * len(frozen) - 10
    for path, value in found.items():
        np.testing.assert_allclose(value, expected[path], rtol=1e-5, atol=1e-7)
        if path in frozen:
            np.testing.assert_array_equal(value, flatten_dict(variables)[path])
        else:
            assert not np.array_equal(value, now[path])


@pytest.fixture
def job(tiny_network: UNetConfig, monkeypatch: pytest.MonkeyPatch) -> JobSettings:
    monkeypatch.setattr(run_module, "init_variables", lambda config, key: he_variables(config))
    recipe = dataclasses.replace(
        get_recipe("default"),
        intensity_augmentation=False,
        affine_augmentation=False,
        elastic_augmentation=0.0,
        ema=DECAY,
    )
    return JobSettings(tiny_network, recipe, 6, checkpoint_every=2)


PROGRAMS = Programs()


def train(store: Store, job: JobSettings, folder: Path) -> Fit:
    with lock_folder(folder):
        return train_job(store, job, folder, programs=PROGRAMS, progress=False)


def test_the_average_is_the_model_and_a_run_goes_on_to_the_same_bits(
    tiny_store: Store, job: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny_store, job, tmp_path / "whole").state
    saved = load_model(tmp_path / "whole")
    equal({"params": saved.params, "batch_stats": saved.batch_stats}, whole.average)
    assert not np.array_equal(saved.params["head"]["kernel"], whole.params["head"]["kernel"])

    plain = dataclasses.replace(job, recipe=job.recipe.override(ema=0.0))
    equal(train(tiny_store, plain, tmp_path / "plain").state.params, whole.params)

    with power_cut(4, monkeypatch):
        train(tiny_store, job, tmp_path / "cut")
    end = train(tiny_store, job, tmp_path / "cut")
    assert end.resumed_at == 4
    equal(end.state, whole)


def test_validation_is_of_the_average(
    tiny_store: Store, job: JobSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = prepare_run(tiny_store, dataclasses.replace(job, validation=1), tmp_path, programs=PROGRAMS)
    seen: list[Any] = []

    def predictor(config: UNetConfig, params: Any, batch_stats: Any) -> Any:
        seen.append({"params": params, "batch_stats": batch_stats})
        return lambda image: np.zeros((*image.shape, 1), np.float32)

    monkeypatch.setattr(task_data_module, "make_predictor", predictor)
    other = jax.tree.map(lambda a: a + 1, run.state.average)
    run.data.validator(run.validating)(dataclasses.replace(run.state, average=other))
    equal(seen, [other])


@pytest.mark.slow
def test_runs_at_once_save_their_averages(tiny_store: Store, job: JobSettings, tmp_path: Path) -> None:
    programs = Programs()
    jobs = [dataclasses.replace(job, seed=seed) for seed in (0, 1)]
    runs = [prepare_run(tiny_store, j, tmp_path / f"t{j.seed}", programs=programs) for j in jobs]
    assert fit_together(runs, programs) == [None, None]
    alone = train(tiny_store, jobs[0], tmp_path / "alone").state
    saved = load_model(tmp_path / "t0")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3), saved.params, alone.model["params"]
    )


def test_without_it_a_state_is_what_it_was() -> None:
    fields = [f.name for f in dataclasses.fields(TrainState)]
    variables = {"params": {"head": {"bias": jnp.zeros(1)}}, "batch_stats": {}}
    state = init_state(variables, make_optimiser(get_recipe("paper"), 1, {"head": {"bias": "trained"}}))
    assert fields[-1] == "average" and state.average is None
    assert state.model["params"] is state.params
    assert "ema" not in get_recipe("default").to_dict()
