"""Muon against SciPy's singular values, and in groups against optax's own, a kernel at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from tlseg_jax.models.networks import get_network, variable_shapes
from tlseg_jax.train import muon
from tlseg_jax.train.muon import NEWTON_SCHULZ, PADDING, group_shapes, matrix_shape, operations, scale_by_muon_and_adam
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.transfer.freeze import get_rules, label_parameters

pytestmark = pytest.mark.usefixtures("quick_compile")


def kernels(seed: int) -> dict[str, Any]:
    """A convolution's kernel that sums over more than it puts out, one the other way round, a bias and a scale."""
    rng = np.random.default_rng(seed)
    shapes = {"wide": (3, 3, 3, 4, 8), "narrow": (1, 1, 1, 4, 16), "bias": (8,), "scale": (8,)}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def test_muon_takes_the_nearest_matrix_without_preferred_directions() -> None:
    """Against SciPy's singular values: those of the update are all near one, its directions the momentum's."""
    first, second, momentum = kernels(0), kernels(1), 0.6
    optimiser = scale_by_muon_and_adam(momentum, optax.scale_by_adam())
    state = optimiser.init(first)
    _, state = optimiser.update(first, state)
    found, _ = optimiser.update(second, state)
    for name in ("wide", "narrow"):
        a, b = (np.asarray(g[name], np.float64).reshape(-1, g[name].shape[-1]) for g in (first, second))
        # The mean of the gradients as Nesterov looks ahead; its length does not matter.
        mean = momentum * (momentum * (1 - momentum) * a + (1 - momentum) * b) / (1 - momentum**3)
        mean += (1 - momentum) * b / (1 - momentum**2)
        left, _, right = scipy.linalg.svd(mean, full_matrices=False)
        update = np.asarray(found[name]).reshape(mean.shape) / (0.2 * np.sqrt(max(mean.shape)))
        turned = left.T @ update @ right.T
        assert np.diag(turned).min() > 0.6 and np.diag(turned).max() < 1.3
        assert np.abs(turned - np.diag(np.diag(turned))).max() < 0.02
    adam = optax.scale_by_adam()
    _, before = adam.update(first, adam.init(first))
    expected, _ = adam.update(second, before)
    for name in ("bias", "scale"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_muon_leaves_the_frozen_part_alone_and_keeps_one_moment_of_a_kernel() -> None:
    start, target = kernels(0), kernels(1)
    labels = {"wide": "trained", "narrow": "frozen", "bias": "trained", "scale": "trained"}
    recipe = get_recipe("default").override(optimiser="muon", learning_rate=0.3)
    optimiser = make_optimiser(recipe, 300, labels)
    state, w = optimiser.init(start), start
    assert sum(x.size for x in jax.tree.leaves(state) if x.dtype == np.float32 and x.ndim > 2) == start["wide"].size

    @jax.jit
    def step(w: Any, state: Any) -> Any:
        updates, state = optimiser.update(jax.tree.map(jnp.subtract, w, target), state, w)
        return optax.apply_updates(w, updates), state

    for _ in range(300):
        w, state = step(w, state)
    np.testing.assert_array_equal(w["narrow"], start["narrow"])
    for name in ("wide", "bias", "scale"):
        assert float(jnp.abs(w[name] - target[name]).max()) < 0.02


def one_by_one(momentum: float) -> optax.GradientTransformation:
    """optax's, with a loop a kernel: what every checkpoint was made with before kernels were grouped."""

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda p: MuonDimensionNumbers(tuple(range(p.ndim - 1)), (p.ndim - 1,)), params)

    return scale_by_muon(NEWTON_SCHULZ, beta=momentum, weight_dimension_numbers=matrices)


def odd_shapes(seed: int) -> list[tuple[int, ...]]:
    """Kernels of volumes and slices, tall and wide, most of them of a shape that another nearly has."""
    rng = np.random.default_rng(seed)
    taps = rng.choice([1, 2, 3], size=6)
    shapes = [(*(t,) * rng.integers(2, 4), *rng.integers(1, 24, size=2)) for t in taps]
    return [tuple(map(int, s)) for s in [*shapes, shapes[0], (1, 1, 1, 1, 1), (1, 1, 4, 36), (1, 3, 3, 4, 4)]]


def random_tree(like: Any, seed: int) -> Any:
    """Normal numbers, of a size of its own in each array."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 10.0 ** rng.uniform(-6, 1), jnp.float32), like)


def same_tree(a: Any, b: Any) -> bool:
    """Whether two trees have one structure."""
    ours: Any = jax.tree.structure(a)
    return bool(ours == jax.tree.structure(b))


def assert_near(found: Any, expected: Any) -> None:
    """The same tree, every array to the rounding that five steps make of float32's."""
    assert same_tree(found, expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * max(float(jnp.abs(b).max()), 1e-30))


@pytest.mark.parametrize(("seed", "padding"), [(1, PADDING), pytest.param(0, float("inf"), marks=pytest.mark.slow)])
def test_in_groups_it_is_optaxs(seed: int, padding: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "PADDING", padding)
    like = {str(i): jax.ShapeDtypeStruct(s, jnp.float32) for i, s in enumerate(odd_shapes(seed))}
    groups = len(group_shapes([matrix_shape(k.shape) for k in like.values()]))
    assert groups < len(like) if padding < 1 else groups == 1
    grouped, own = (t(0.6) for t in (muon.scale_by_grouped_muon, one_by_one))
    # The state of either goes on under the other: a checkpoint does not know which made it.
    state = by_one = own.init(random_tree(like, 0))
    assert same_tree(grouped.init(random_tree(like, 0)), state)
    grouped_update, own_update = jax.jit(grouped.update), jax.jit(own.update)
    for step in range(3):
        grads = random_tree(like, 100 * seed + step + 1)
        found, state = grouped_update(grads, state)
        expected, by_one = own_update(grads, by_one)
        assert_near(found, expected)
        assert_near(state, by_one)


ALONE: list[dict[str, Any]] = [{}, {"freeze": "encoder"}, {"unfreezing": "warmup_all", "layer_decay": 0.9}]
TOGETHER: dict[str, Any] = {"freeze": "encoder", "layer_decay": 0.7, "l2sp": 0.1}


@pytest.mark.parametrize("given", [*(pytest.param(g, marks=pytest.mark.slow) for g in ALONE), TOGETHER], ids=str)
def test_with_every_remedy_several_runs_train_as_they_did(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parameters of two runs in one program, and what a checkpoint would hold of them, after four steps."""
    values = dict(given)
    like = variable_shapes(get_network("switch8x2"))["params"]
    labels = label_parameters(like, get_rules(values.pop("freeze", "none")))
    recipe = get_recipe("default").override(optimiser="muon", **values)
    start = random_tree(like, 0)

    def train(seeds: list[int]) -> Any:
        optimiser = make_optimiser(recipe, 20, labels)

        @jax.jit
        @jax.vmap
        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = optimiser.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        params = jax.tree.map(lambda p: jnp.stack([p] * len(seeds)), start)
        state = jax.vmap(optimiser.init)(params)
        for t in range(4):
            grads = [random_tree(like, 10 * s + t) for s in seeds]
            params, state = step(params, state, jax.tree.map(lambda *g: jnp.stack(g), *grads))
        return params, state

    found = train([1, 2])
    monkeypatch.setattr(muon, "scale_by_grouped_muon", one_by_one)
    assert_near(found, train([1, 2]))


def test_groups_hold_every_matrix_once_and_add_little() -> None:
    shapes = [(128, 1728), (32, 864), (32, 864), (2, 256), (64, 1728), (64, 1024), (8, 27)]
    groups = group_shapes(shapes)
    assert sorted(i for _, places in groups for i in places) == list(range(len(shapes)))
    for shape, places in groups:
        sides = [shapes[i] for i in places]
        assert shape == (max(s for s, _ in sides), max(s for _, s in sides))
    taken = sum(operations(shape) * len(places) for shape, places in groups)
    alone = sum(map(operations, shapes))
    assert alone < taken <= (1 + PADDING) * alone
    assert len(groups) == 4
    assert ((32, 864), (1, 2, 3, 6)) in groups
    assert group_shapes([]) == []


@pytest.mark.parametrize(
    ("network", "kernels", "loops"), [("switch8x2", 14, 7), pytest.param("unet_fast", 11, 5, marks=pytest.mark.slow)]
)
def test_the_compiled_update_has_a_loop_a_group(network: str, kernels: int, loops: int) -> None:
    like = variable_shapes(get_network(network))["params"]

    def compiled(t: optax.GradientTransformation, trees: Any) -> int:
        program = jax.jit(t.update).lower(trees, jax.eval_shape(t.init, trees)).compile()
        return str(program.as_text()).count(" while(")

    assert sum(k.ndim > 2 for k in jax.tree.leaves(like)) == kernels
    assert compiled(scale_by_muon_and_adam(0.6, optax.scale_by_adam()), like) == loops
    assert compiled(one_by_one(0.6), [k for k in jax.tree.leaves(like) if k.ndim > 2]) == kernels
