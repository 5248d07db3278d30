"""Which rematerialisation a budget leads to, and the sentences where nothing fits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tlseg_jax.runtime.device_memory import Capacity
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import shown
from tlseg_jax.train import memory
from tlseg_jax.train.memory import StepMemory, StepPlan, fit_memory, predict, shortage

MB = 10**6
KEPT = {"none": 8, "block": 4, "full": 2}
"""Arrays that the made-up steps have alive at once."""
STATE = jax.ShapeDtypeStruct((4,), jnp.float32)
BATCH = {"image": jax.ShapeDtypeStruct((2, 50, 50, 100), jnp.float32)}
"""2 MB."""


def make(plan: StepPlan) -> Any:
    """A step that sorts its batch in so many ways and needs them all at the end."""

    @jax.jit
    def step(state: jax.Array, batch: Any) -> jax.Array:
        x = batch["image"].reshape(-1).astype(plan.precision)
        kept = [jnp.sort(x + i) for i in range(KEPT[plan.remat])]
        return state + sum(jnp.sum(a * b) for a, b in zip(kept, reversed(kept), strict=True))

    return step


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what the device has; the backend keeps its word, as a GPU's compiler does."""
    monkeypatch.setattr(memory, "_on_cpu", lambda: False)

    def have(size: int) -> None:
        monkeypatch.setattr(memory, "device_capacity", lambda: Capacity(size, "the free RAM"))

    have(1000 * MB)
    return have


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace's word is taken for everything."""
    monkeypatch.setattr(memory, "AMPLE", float("inf"))


def _fit(budget: int | None, plan: StepPlan = StepPlan(), fixed: bool = False) -> tuple[Any, list[str]]:  # noqa: B008
    said: list[str] = []
    with shown(said.append):
        return fit_memory(make, STATE, BATCH, plan, budget=budget, fixed=fixed), said


@pytest.mark.usefixtures("device", "uncompiled")
@pytest.mark.parametrize(("megabytes", "policy"), [(40, "none"), (14, "block"), (9, "full")])
def test_the_fastest_policy_that_fits_is_taken_and_told(megabytes: int, policy: str) -> None:
    """The less there is, the more is computed again; the line says which, how much and of what."""
    fits, said = _fit(megabytes * MB)
    assert fits.prediction.plan.remat == policy
    assert fits.prediction.total <= megabytes * MB
    assert len(said) == 1 and f"`remat={policy}`" in said[0] and f"{megabytes} MB" in said[0]
    assert all(f"{p} " in said[0] for p in KEPT if KEPT[p] > KEPT[policy])


@pytest.mark.usefixtures("device", "uncompiled")
def test_a_policy_that_was_asked_for_is_only_checked() -> None:
    """Nothing else is chosen: it fits or is refused with what would."""
    fits, _ = _fit(40 * MB, StepPlan("block"), fixed=True)
    assert fits.prediction.plan.remat == "block"
    with pytest.raises(InputError, match=r"`remat=full` .*MB\)\.") as e:
        _fit(9 * MB, StepPlan("block"), fixed=True)
    assert "2 samples of 50x50x100" in str(e.value) and "`memory_budget` is 9 MB" in str(e.value)


@pytest.mark.usefixtures("device", "uncompiled")
def test_where_no_policy_fits_smaller_batches_are_advised_and_last_smaller_patches() -> None:
    """The batch comes after what leaves the result as it is."""
    with pytest.raises(InputError, match=r"`batch_size=1` "):
        _fit(5 * MB)
    with pytest.raises(InputError, match="prepare smaller patches") as e:
        _fit(2)
    assert "give a larger budget" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.usefixtures("uncompiled")
def test_without_a_budget_the_device_is_the_limit(device: Any) -> None:
    """A step beyond the device is refused before it runs; a budget beyond the device is not believed."""
    device(9 * MB)
    with pytest.raises(InputError, match="the free RAM is 9 MB: it would fit with `remat=full`"):
        _fit(None, fixed=True)
    fits, said = _fit(10**12)
    assert fits.prediction.plan.remat == "full" and "more than there is" in said[0]
    device(100 * MB)
    assert _fit(None, fixed=True)[1] == []


def test_the_compiler_decides_where_the_trace_is_near_the_limit() -> None:
    """Ample room and hopeless cases are not compiled; what is compiled counts the compiler's bytes."""
    program, plan = make(StepPlan()), StepPlan()
    by_trace = predict(program, plan, STATE, BATCH, 1000 * MB)
    assert by_trace.compiled is None and by_trace.source == "by the trace"
    assert predict(program, plan, STATE, BATCH, MB).compiled is None
    near = predict(program, plan, STATE, BATCH, int(1.2 * by_trace.total))
    assert near.compiled is not None and near.total == near.arguments + near.compiled
    assert near.total == pytest.approx(by_trace.total, rel=0.5)
    assert predict(program, dataclasses.replace(plan, batch_size=1), STATE, BATCH, 1000 * MB).arguments < 1.1 * MB


def test_xla_cpu_is_not_believed_to_hold_bfloat16() -> None:
    """There a type is only worth what the compiler makes of it."""
    if jax.default_backend() != "cpu":
        pytest.skip("of the CPU backend")
    for plan, asked in ((StepPlan(), False), (StepPlan(precision="bfloat16"), True)):
        assert (predict(make(plan), plan, STATE, BATCH, 1000 * MB).compiled is not None) == asked


def test_a_program_that_the_compiler_refuses_does_not_fit() -> None:
    """As XLA's TPU compiler does with one beyond the chip's memory."""

    class Refused:
        def trace(self, state: Any, batch: Any) -> Any:
            traced = make(StepPlan()).trace(state, batch)

            class Traced:
                jaxpr = traced.jaxpr

                def lower(self) -> Any:
                    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.")

            return Traced()

    found = predict(Refused(), StepPlan(), STATE, BATCH, 20 * MB)
    assert found.refused and not found.fits(10**15)


@pytest.mark.usefixtures("device", "uncompiled")
def test_running_out_all_the_same_advises_less_than_was_predicted() -> None:
    """What was predicted to fit and did not is no measure of itself."""
    asked = StepMemory(StepPlan(), 2 * MB, 5 * MB, 16 * MB)
    error = shortage(make, STATE, BATCH, asked, Capacity(1000 * MB, "the memory of the GPU"), failed=True)
    assert str(error).startswith("The memory ran out while training") and "it would fit with `" in str(error)
    assert "1 GB" in str(error)
