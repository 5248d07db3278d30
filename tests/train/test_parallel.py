"""Every way of training on eight devices gives one device's results, exchanges what it should, and saves memory."""

import collections as counting
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.collectives import Collective, Shape, collectives
from tests.processes import python
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import shown
from tlseg_jax.train import parallel as parallel_module
from tlseg_jax.train.batch_sums import mean_over, sum_over
from tlseg_jax.train.parallel import ONE, Parallel, choose_parallel, local_state

ROUNDING = 2e-6
"""Of the losses of the first three steps: sums of up to 10,000 float32 numbers, taken in another order, differ by a few
of its 2^-23 = 1.2e-7. Measured: 3e-7 at most."""

GROWN = 1e-4
"""Of losses, parameters and running averages after 20 steps, by the largest of their array. Rounding grows from step
to step, through Adam's division by small roots and where the two largest voxels of a pooling cell are equal up to it.
Measured: 4e-6 at most. Of a way that is wrong the losses are 1e-4 off within three steps (case "wrong")."""


def _result(script: str, *arguments: str, devices: int = 8) -> dict[str, Any]:
    environment = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = python("-m", f"tests.train.{script}", *arguments, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_either_way_trains_as_one_device_does() -> None:
    """Batch norm, augmentation, losses of sums: of a tiny network, by pmap and on a mesh."""
    _check_differences(_result("parallel_run", devices=4)["differences"], 2)


def _check_differences(cases: dict[str, Any], count: int) -> None:
    assert len(cases) == count
    for case, row in cases.items():
        assert row["first losses"] < ROUNDING, (case, row)
        assert row["losses"] < GROWN and row["params"] < GROWN and row["batch_stats"] < GROWN, (case, row)


def _read(found: dict[str, Any], way: str) -> list[Collective]:
    return [Collective(kind, tuple(map(tuple, shapes))) for kind, shapes in found["exchanges"][way]]


def _check_pmap(found: dict[str, Any], way: str, parameters: str) -> None:
    """All-reduces only: one of all trained parameters' gradients, the others of a channel's two statistics or less."""
    shapes = [tuple(s) for s in found[parameters]]
    vector = sum(int(np.prod(s)) for s in shapes)
    exchanged = _read(found, way)
    assert {c.kind for c in exchanged} == {"all-reduce"}
    gradients = [c for c in exchanged if (vector,) in c.shapes]
    assert len(gradients) == 1
    most = max(max(s) for s in shapes if len(s) == 1)
    assert all(c.elements <= 2 * most for c in exchanged if c not in gradients)


def as_kernels(shapes: Iterable[Shape]) -> counting.Counter[Shape]:
    """Of how many axes beyond one each, and how long, in any order: the compiler may have turned a kernel round."""
    return counting.Counter(tuple(sorted(s)) for s in shapes if len(s) > 1)


def _check_mesh(found: dict[str, Any], way: str, axes: int) -> None:
    """Nothing is gathered; halos are single planes; each kernel's gradient is reduced once an axis of devices.

    The compiler lets them ride with the sums of batch norms, which must be exchanged in any case, in the order in which
    the optimiser takes the kernels up. What counts is how many exchanges the kernels add: one on a mesh of a
    single axis, five on one of two.
    """
    exchanged = _read(found, way)
    assert {c.kind for c in exchanged} == {"all-reduce", "collective-permute"}
    halos = [s for c in exchanged if c.kind == "collective-permute" for s in c.shapes]
    assert halos and all(len(s) == 5 and s[1] == 1 for s in halos)
    reduced = [c for c in exchanged if c.kind == "all-reduce"]
    kernels = as_kernels([tuple(s) for s in found["parameters"]])
    assert as_kernels([s for c in reduced for s in c.shapes]) == {s: n * axes for s, n in kernels.items()}
    with_kernels = [c for c in reduced if as_kernels(c.shapes)]
    assert sum(not _of_a_norm(c.shapes) for c in with_kernels) <= {1: 1, 2: 5}[axes]
    assert len(with_kernels) < sum(kernels.values()) * axes


def _of_a_norm(shapes: Iterable[Shape]) -> bool:
    """Whether two sums a channel are among these, as a batch norm exchanges them."""
    return max(counting.Counter(s for s in shapes if len(s) == 1).values(), default=0) >= 2


def _check_memory(found: dict[str, Any]) -> None:
    temporary = found["temporary"]
    for k in (int(name.removeprefix("mesh 1x")) for name in temporary if name.startswith("mesh 1x")):
        assert temporary["one"] / temporary[f"mesh 1x{k}"] >= 0.8 * k
    assert temporary["one"] / temporary["mesh 2x4"] >= 0.8 * 8


@pytest.mark.slow
def test_exchanges_and_memory_of_the_papers_network_and_every_way() -> None:
    found = _result("parallel_run", "all")
    _check_pmap(found, "pmap 2", "parameters")
    _check_pmap(found, "pmap 2, encoder frozen", "decoder parameters")
    _check_mesh(found, "mesh 1x4", 1)
    _check_mesh(found, "mesh 2x4", 2)
    _check_memory(found)
    assert {"mesh 1x2", "mesh 1x4", "mesh 1x8"} <= found["temporary"].keys()
    differences = found["differences"]
    assert differences.pop("wrong")["first losses"] > 20 * ROUNDING
    _check_differences(differences, 9)
    assert {c.kind for c in _read(found, "mesh 2x1")} == {"all-reduce"}


@pytest.mark.slow
def test_whole_runs_on_several_devices(tmp_path: Path) -> None:
    """With validation, checkpoints, steps a call, and data or features that lie on every device."""
    found = _result("parallel_jobs", str(tmp_path), devices=4)
    assert found["features"]["said"] == ["parallel: batch 4 on 4 of 4 devices, by pmap."]
    assert not found["one"]["said"]
    for case in ("pmap", "mesh", "features"):
        assert max(found[case]["differences"].values()) < GROWN, found[case]


def test_collectives_are_read_from_a_program() -> None:
    text = """
      %all-reduce.1 = (f32[8]{0}, /*index=1*/bf16[3,4]{1,0}) all-reduce(%a, %b), channel_id=1
      ROOT %ag = f32[2,3]{1,0} all-gather(%c), dimensions={0}
      %cps = (f32[1,5]{1,0}, f32[1,5]{1,0}, u32[], u32[]) collective-permute-start(%d)
      %cpd = f32[1,5]{1,0} collective-permute-done(%cps)
      %fusion = f32[9]{0} fusion(%all-reduce.1), calls=%all-reduce-like
    """
    assert collectives(text) == [
        Collective("all-reduce", ((8,), (3, 4))),
        Collective("all-gather", ((2, 3),)),
        Collective("collective-permute", ((1, 5),)),
    ]


def _choose(monkeypatch: pytest.MonkeyPatch, devices: int, *given: Any, processes: int = 1, **more: Any) -> Any:
    """Of so many devices (way, data, space, devices used), and what was said."""

    class Device:
        def __init__(self, i: int) -> None:
            self.id, self.process_index, self.platform = i, i // (devices // processes), "cpu"

    all_of_them = [Device(i) for i in range(devices)]
    monkeypatch.setattr(parallel_module.jax, "devices", lambda: all_of_them)
    monkeypatch.setattr(parallel_module.jax, "process_count", lambda: processes)
    said: list[str] = []
    asked, mesh, batch, sides, multiple = given
    with shown(said.append):
        found = choose_parallel(asked, mesh, batch, sides, multiple, **more)
    return (found.way, found.data, found.space, len(found.devices)), said


@pytest.mark.parametrize(
    ("devices", "given", "found", "said"),
    [
        (1, (None, None, 2, (16,) * 3, 8), ("one", 1, 1, 0), []),
        (8, (None, None, 6, (16,) * 3, 8), ("pmap", 6, 1, 6), ["batch 6 on 6 of 8 devices"]),
        (8, (None, None, 2, (16,) * 3, 8), ("pmap", 2, 1, 2), ["batch 2 on 2 of 8 devices"]),
        (8, (None, None, 1, (16,) * 3, 8), ("one", 1, 1, 0), ["batch 1 on 1 of 8 devices"]),
        (8, ("one", None, 2, (16,) * 3, 8), ("one", 1, 1, 0), []),
        (8, ("pmap", None, 16, (16,) * 3, 8), ("pmap", 8, 1, 8), ["pmap over 8 devices"]),
        (8, ("mesh", "data:2,space:2", 2, (16,) * 3, 8), ("mesh", 2, 2, 4), ["mesh of data:2,space:2"]),
        (8, (None, "space:8", 1, (64, 8, 8), 8), ("mesh", 1, 8, 8), ["mesh of data:1,space:8"]),
    ],
)
def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch, devices: int, given: Any, found: Any, said: list[str]) -> None:
    got, lines = _choose(monkeypatch, devices, *given)
    assert got == found
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True))


@pytest.mark.parametrize(
    ("given", "more", "words"),
    [
        (("pmap", None, 6, (16,) * 3, 8), {}, r"batch of 6 does not divide: `parallel=pmap` .* `batch_size=8`"),
        (("pmap", None, 8, (16,) * 3, 8), {"accumulate": 2}, r"in 2 micro-batches; give `batch_size=16`"),
        (("one", None, 3, (16,) * 3, 8), {"accumulate": 2}, r"`accumulate=2` does not divide .* `batch_size=4`"),
        (("mesh", "data:4", 2, (16,) * 3, 8), {}, r"`mesh=data:4` divides it over 4; give `batch_size=4`"),
        (("mesh", "data:2,space:4", 2, (40, 64, 64), 8), {}, r"first side of a volume, 40, .* by 32 .* 64"),
        (("mesh", "data:4,space:4", 4, (64,) * 3, 8), {}, r"needs 16 devices and there are 8"),
        (("mesh", None, 4, (64,) * 3, 8), {}, r"give `mesh=data:N,space:K`"),
        (("mesh", "2x4", 4, (64,) * 3, 8), {}, r"`mesh=2x4` cannot be read: .* as in `mesh=data:2,space:4`"),
        (("mesh", "data:2,data:4", 4, (64,) * 3, 8), {}, "cannot be read"),
        (("mesh", "data:0", 4, (64,) * 3, 8), {}, "cannot be read"),
        (("pmap", "data:2", 4, (64,) * 3, 8), {}, r"`mesh=data:2` does not go with `parallel=pmap`"),
        (("mesh", "data:1,space:8", 4, (64,) * 3, 8), {"processes": 2}, r"several processes: a process has 4"),
        (("mesh", "data:2,space:2", 4, (64,) * 3, 8), {"processes": 2}, r"takes 4 of 8 devices"),
        (("one", None, 4, (64,) * 3, 8), {"processes": 2}, r"2 processes would train 2 times the same"),
        ((None, None, 4, (64,) * 3, 8), {"processes": 2}, r"batch of 4 does not divide"),
    ],
)
def test_what_cannot_be_is_one_sentence(monkeypatch: pytest.MonkeyPatch, given: Any, more: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        _choose(monkeypatch, 8, *given, **more)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def test_sums_over_devices_have_the_gradient_of_their_own_part() -> None:
    """On an axis of `jax.vmap`, which names devices as `jax.pmap` does."""
    x = jnp.arange(12.0).reshape(4, 3)

    def loss(rows: jax.Array) -> jax.Array:
        return mean_over(jnp.mean(rows**2), "data") + sum_over(jnp.sum(rows), "data") ** 2

    value, gradient = jax.vmap(jax.value_and_grad(loss), axis_name="data")(x)
    whole, expected = jax.value_and_grad(lambda v: jnp.mean(v**2) + jnp.sum(v) ** 2)(x)
    np.testing.assert_allclose(value, np.full(4, whole), rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_one_device_is_left_as_it_is() -> None:
    tree = {"a": np.zeros(3), "b": jnp.ones(2)}
    assert all(f(tree) is tree for f in (ONE.split, ONE.replicate, ONE.split_shapes, ONE.spread))
    assert all(a is b for a, b in zip(jax.tree.leaves(local_state(tree)), jax.tree.leaves(tree), strict=True))


def test_state_is_placed_whole_once() -> None:
    """On a mesh of the one device that there is here: a copy only where it lies elsewhere."""
    device = jax.devices()[0]
    parallel = Parallel("mesh", 1, 1, (device,))
    placed = parallel.replicate({"a": np.arange(3.0), "n": np.int32(4)})
    assert parallel.replicate(placed)["a"] is placed["a"] and int(placed["n"]) == 4
    rows = parallel.split({"image": np.ones((2, 4))})["image"]
    assert rows.sharding == NamedSharding(Mesh(np.array([[device]]), ("data", "space")), PartitionSpec("data"))
