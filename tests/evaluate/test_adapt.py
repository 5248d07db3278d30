"""Norms that take a share of their statistics from the scan: by hand, over several calls, and kept with the scores."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from scipy.ndimage import correlate

from tests.conftest import blob, he_variables
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.evaluate.inference import AdaptingPredictor, predict_tiles, predict_volume
from tlseg_jax.evaluate.slice_inference import predict_planes
from tlseg_jax.evaluate.tta import averaged_words
from tlseg_jax.models.adabn import pooled
from tlseg_jax.models.layers import Conv
from tlseg_jax.models.networks import probability
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.studies.assess import assess, is_scored
from tlseg_jax.studies.cells import Cell, PretrainCell
from tlseg_jax.studies.runs import train_and_assess
from tlseg_jax.studies.study import REMEDIES, Method
from tlseg_jax.studies.sweep import Sweep
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train import run as run_module
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.predictors import make_predictor
from tlseg_jax.train.recipes import get_recipe

pytestmark = pytest.mark.usefixtures("quick_compile")

SHARE = 0.3


@pytest.fixture(scope="module")
def variables(tiny_network: UNetConfig) -> dict[str, Any]:
    """With running averages that are those of nobody."""
    found = he_variables(tiny_network, 1)
    rng = np.random.default_rng(2)
    found["batch_stats"] = jax.tree.map(
        lambda a: rng.uniform(0.5, 1.5, a.shape).astype(np.float32), found["batch_stats"]
    )
    return found


@pytest.fixture(scope="module")
def scan() -> Any:
    """(1, x, y, z), brighter and of more contrast than a z-scored one."""
    return (3 * blob(3)[0][None] + 2).astype(np.float32)


def adapted(config: UNetConfig, variables: Any, share: float) -> Any:
    found = make_predictor(config, variables["params"], variables["batch_stats"], share)
    assert isinstance(found, AdaptingPredictor)
    return found


def test_the_first_norm_s_blend_by_hand(tiny_network: UNetConfig, variables: Any, scan: Any) -> None:
    _, own = adapted(tiny_network, variables, SHARE).see(scan, np.ones(1, np.float32))
    kernel = variables["params"]["encoder_0"]["conv_0"]["kernel"]
    seen = np.stack([correlate(scan[0], kernel[..., 0, k], mode="constant") for k in range(kernel.shape[-1])], -1)
    norm = own["encoder_0"]["bn_0"]
    np.testing.assert_allclose(norm["mean"], seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm["var"], seen.var((0, 1, 2)), rtol=1e-4)


def test_every_norm_goes_by_the_blend_of_what_it_sees(tiny_network: UNetConfig, variables: Any, scan: Any) -> None:
    """A plain network with the blends for running averages gives the same, and its norms then see those statistics."""
    found, own = adapted(tiny_network, variables, SHARE).see(scan, np.ones(1, np.float32))
    running = variables["batch_stats"]
    stats = jax.tree.map(lambda a, b: 0.7 * a + 0.3 * b, running, own)
    logits, kept = jax.jit(
        lambda image: tiny_network.module().apply(
            {"params": variables["params"], "batch_stats": stats},
            image[..., None],
            capture_intermediates=lambda module, _: isinstance(module, Conv),
            mutable=["intermediates"],
        )
    )(scan)
    np.testing.assert_allclose(found, jax.nn.softmax(logits)[..., 1:], rtol=1e-4, atol=1e-5)
    convs = {path[:-1]: value[0] for path, value in flatten_dict(kept["intermediates"]).items()}
    norms = {path[:-1]: path for path in flatten_dict(own) if path[-1] == "mean"}
    assert len(norms) == len(convs) == 5
    for path, value in convs.items():
        norm = own[path[0]][path[1].replace("conv", "bn")]
        np.testing.assert_allclose(norm["mean"], np.asarray(value).mean((0, 1, 2, 3)), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm["var"], np.asarray(value).var((0, 1, 2, 3)), rtol=1e-3)


def test_the_whole_share_is_the_batch_s_own_as_in_training(tiny_network: UNetConfig, variables: Any, scan: Any) -> None:
    logits, _ = jax.jit(
        lambda image: tiny_network.module().apply(variables, image[..., None], train=True, mutable=["batch_stats"])
    )(scan)
    found = adapted(tiny_network, variables, 1.0)(scan)
    np.testing.assert_allclose(found, jax.nn.softmax(logits)[..., 1:], rtol=1e-3, atol=1e-4)


def test_none_is_the_plain_network_and_no_share_is_refused(tiny_network: UNetConfig, variables: Any, scan: Any) -> None:
    plain = make_predictor(tiny_network, variables["params"], variables["batch_stats"])
    np.testing.assert_array_equal(plain(scan), jax.jit(probability(tiny_network))(variables, jnp.asarray(scan)))
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"`adabn=.*` is not a share"):
            make_predictor(tiny_network, {}, {}, share)
    with pytest.raises(InputError, match=r"tiny has none: leave it out"):
        make_predictor(tiny_network, {}, {}, 0.5)


def test_pooled_statistics_are_those_of_all_together() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(m, 1 + m, (100 * n, 3)) for m, n in ((0, 1), (2, 3))]
    stats = [{"a": {"bn_0": {"mean": p.mean(0), "var": p.var(0)}}} for p in parts]
    whole = np.concatenate(parts)
    found = pooled(stats, [1.0, 3.0])["a"]["bn_0"]
    np.testing.assert_allclose(found["mean"], whole.mean(0))
    np.testing.assert_allclose(found["var"], whole.var(0))


def test_all_calls_of_a_scan_go_by_the_same_statistics_and_filling_counts_nowhere() -> None:
    """Three tiles in calls of two: the second call's second row only fills it up."""
    calls: list[Any] = []

    def see(rows: Any, weights: Any) -> Any:
        calls.append(weights.tolist())
        return rows[..., None] * 0, float(rows[weights > 0].mean())

    def fixed(parts: list[Any], weights: list[float]) -> Any:
        mean = np.average(parts, weights=weights)
        return lambda rows: np.full((*rows.shape, 1), mean / 10, np.float32)

    image = np.repeat(np.arange(1, 4, dtype=np.float32), 8)[:, None, None] * np.ones((24, 8, 8), np.float32)
    predictor = AdaptingPredictor(see, fixed)
    found = predictor.over_scan(lambda p: predict_tiles(image, (8, 8, 8), p, overlap=0, batch=2))
    assert calls == [[1, 1], [1, 0]]
    np.testing.assert_allclose(found, 0.2)


def test_a_volume_s_tiles_and_a_stack_s_slices_are_one_scan() -> None:
    seen: list[int] = []

    def see(rows: Any, weights: Any) -> Any:
        seen.append(int(weights.sum()))
        return np.zeros((*rows.shape[:3], *(() if rows.shape[-1] == 1 else rows.shape[3:]), 1), np.float32), {}

    def fixed(parts: list[Any], weights: list[float]) -> Any:
        return lambda rows: see(rows, np.zeros(1))[0] + 0.5

    predictor = AdaptingPredictor(see, fixed)
    planes = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(predict_planes(planes, predictor, batch=2), 0.5)
    assert seen == [2, 2, 1, 0, 0, 0]
    spec = get_spec("hdt_wb")
    tile = spec.volumes.patch_size
    volume = np.random.default_rng(0).normal(size=(tile[0] + 8, tile[1], tile[2])).astype(np.float32)
    np.testing.assert_allclose(predict_volume(volume, spec, None, predictor, batch=1), 0.5, rtol=1e-5)


def test_scores_know_how_they_were_made_and_what_replaces_others_is_told(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(run_module, "init_variables", lambda config, key: he_variables(config))
    job = JobSettings(tiny_network, get_recipe("paper"), 2)
    run = tmp_path / "run"
    place = Workplace(tmp_path, progress=False)
    train_and_assess(place, tiny_store, job, run, None, [tiny_store], Execution(), figures=False)
    assert is_scored(run, tiny_store) and not is_scored(run, tiny_store, adabn=SHARE)
    with lock_folder(run):
        entries = assess(run, load_model(run), tiny_store, adabn=SHARE, progress=False, figures=False)
    assert entries["tiny"]["adabn"] == SHARE
    assert is_scored(run, tiny_store, adabn=SHARE) and not is_scored(run, tiny_store)
    # As of a recipe of ours, whose volumes are asked in several passes.
    saved = load_model(run)
    ours = dataclasses.replace(saved, description=saved.description | {"smallest_pieces": {}})
    said.clear()
    with lock_folder(run):
        for tta in (True, True, False, False):
            assess(run, ours, tiny_store, tta=tta, progress=False, figures=False)
    several, one = averaged_words(tiny_store.spec), "one pass"
    assert said == [f"{run}: scores by {a} replace those by {b} on tiny." for a, b in ((several, one), (one, several))]


def test_a_sweep_scores_the_remedy_s_cells_so_and_no_other() -> None:
    sweep = Sweep.__new__(Sweep)
    sweep.place = Workplace(Path("w"))
    cell = Cell(Method("FT-adabn", "hdt_v", remedy="adabn", baseline="FT"), 2, 0, None)
    assert sweep.place_of(cell).adabn == REMEDIES["adabn"].adabn > 0
    assert sweep.place_of(dataclasses.replace(cell, method=Method("FT", "hdt_v"))).adabn == 0
    sweep.place = Workplace(Path("w"), adabn=0.7)
    assert sweep.place_of(dataclasses.replace(cell, method=Method("FT", "hdt_v"))).adabn == 0.7
    assert sweep.place_of(PretrainCell("hdt_v", 0, None)).adabn == 0
