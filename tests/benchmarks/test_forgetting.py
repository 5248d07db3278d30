"""Networks put together of parts of two."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks.forgetting import MIXTURES, check_alike, mixed
from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.models.networks import get_network, variable_shapes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.predictors import load_predictor


def filled(value: float) -> SavedModel:
    """A network of which every number is the same."""
    config = get_network("unet2d_fast")
    shapes = variable_shapes(config)
    of = {k: jax.tree.map(lambda s: np.full(s.shape, value, s.dtype), shapes[k]) for k in ("params", "batch_stats")}
    return SavedModel(config, of["params"], of["batch_stats"], {}, 0)


def named(tree: Any) -> dict[str, float]:
    return {jax.tree_util.keystr(k): float(np.unique(v).item()) for k, v in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("name", MIXTURES)
def test_each_part_is_of_the_network_that_the_mixture_names(name: str) -> None:
    mixture, value = MIXTURES[name], {"pre": 1.0, "fine": 2.0, "own": 2.0}
    found = mixed(filled(1.0), filled(2.0), mixture)
    assert set(named(found.batch_stats).values()) == {value[mixture.averages]}
    params = named(found.params)
    norms = {k: v for k, v in params.items() if k.endswith(("['scale']", "['norm']['bias']"))}
    assert norms and set(norms.values()) == {value[mixture.scales]}
    rest = {k: v for k, v in params.items() if k.endswith("['kernel']")}
    assert rest and set(rest.values()) == {value[mixture.weights]}
    assert named(found.params).keys() == named(filled(1.0).params).keys()


def test_the_whole_of_either_predicts_as_it_does() -> None:
    rng = np.random.default_rng(0)
    one, other = (
        dataclasses.replace(
            filled(0.0),
            params=jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), filled(0.0).params),
            batch_stats=jax.tree.map(lambda a: rng.uniform(0.5, 2, a.shape).astype(a.dtype), filled(0.0).batch_stats),
        )
        for _ in range(2)
    )
    image = rng.normal(size=(1, 32, 32, 1)).astype(np.float32)
    for name, whole in (("pre-trained", one), ("fine-tuned", other)):
        np.testing.assert_array_equal(
            load_predictor(mixed(one, other, MIXTURES[name]))(image), load_predictor(whole)(image)
        )


def test_networks_of_other_outputs_are_refused() -> None:
    other = dataclasses.replace(filled(1.0), config=get_network("unet2d"))
    with pytest.raises(InputError, match="another network"):
        check_alike(filled(1.0), other, "RUN")
