"""Unfreezing in stages, trained: what moves in each stage, and going on across a stage's end."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.conftest import he_variables
from tests.train.power_cut import power_cut
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train import run as run_module
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.trainer import Fit

pytestmark = pytest.mark.usefixtures("quick_compile")


def moved(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    """Blocks in which any parameter differs."""
    return {
        k
        for k in a
        if any(
            (np.asarray(x) != np.asarray(y)).any()
            for x, y in zip(jax.tree.leaves(a[k]), jax.tree.leaves(b[k]), strict=True)
        )
    }


@pytest.mark.slow  # five programs to compile
def test_each_stage_moves_its_blocks_and_a_run_goes_on_across_them(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "init_variables", lambda config, key: he_variables(config))
    recipe = dataclasses.replace(
        get_recipe("default"), intensity_augmentation=False, affine_augmentation=False, elastic_augmentation=0.0
    )

    programs = Programs()

    def train(name: str, recipe: Any, steps: int, start: Pretrained | None = None) -> Fit:
        job = JobSettings(tiny_network, recipe, steps, checkpoint_every=2)
        with lock_folder(tmp_path / name):
            return train_job(tiny_store, job, tmp_path / name, start, programs=programs, progress=False)

    train("first", recipe, 2)
    start = Pretrained.load(tmp_path / "first")
    staged = dataclasses.replace(recipe, unfreezing="staged")
    whole = train("whole", staged, 6, start)

    expected = [{"head"}, {"head", "decoder_0", "decoder_1"}]
    for stop, blocks in zip((2, 4), expected, strict=True):
        with power_cut(2, monkeypatch):
            train("cut", staged, 6, start)
        there = load_model(tmp_path / "cut")
        assert there.step == stop and moved(start.saved.params, there.params) == blocks
    end = train("cut", staged, 6, start)
    assert end.resumed_at == 4
    assert moved(start.saved.params, end.state.params) == set(start.saved.params)
    for x, y in zip(jax.tree.leaves(whole.state), jax.tree.leaves(end.state), strict=True):
        np.testing.assert_array_equal(x, y)
