"""How long is a training step of the 2D network, and would hand-written gradients or dropout shorten it?

    python -m benchmarks.conv2d_step [--sides=96,128] [--rounds=5] \
        [--out=benchmarks/results/cpu-2core/conv2d_step.json]

Times the whole step (float32, batch 10, binary cross-entropy, Adam on the trained sub-tree), since XLA
fuses what stands alone in a smaller benchmark. The forms are taken in turn within each round, and each
one's median ratio to the library's own step is printed:

  library       XLA's convolution and gradients, dropout of one random bit a value
  flax_dropout  the same with flax's dropout, 32 random bits a value
  flipped       the input's gradient as a convolution of the output's with the flipped kernel
  blocks        the kernel's gradient at full resolution as matrix products over blocks of rows
  images        the kernel's gradient at the two finest levels as a sum over images, each its own convolution
  ..., frozen   the first two resolution levels frozen
"""

import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jax import lax

from benchmarks import flags as common_flags
from benchmarks.flags import OUT, ROUNDS
from tlseg_jax.models import unet2d
from tlseg_jax.models.conv2d import conv2d
from tlseg_jax.models.dropout import Dropout
from tlseg_jax.models.networks import get_network, init_variables
from tlseg_jax.train.slice_losses import get_slice_loss
from tlseg_jax.transfer.freeze import (
    frozen_batch_norms,
    get_rules,
    label_parameters,
    merge_parameters,
    split_parameters,
)

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

SIDES = flags.DEFINE_list("sides", ["96", "128"], "Pixels a side of the slices.")

BATCH = 10
ROWS = 8
FULL = 96
"""Pixels a side from which "blocks" takes its own form: below, it gains next to nothing even alone."""

Form = Literal["flipped", "blocks", "images"]
Conv = Callable[[jax.Array, jax.Array], jax.Array]


def _flipped_input_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
    return conv2d(g, kernel[::-1, ::-1].swapaxes(2, 3))


def _blocks_kernel_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    features = g.shape[-1]

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        image, row = i // (h // ROWS), i % (h // ROWS) * ROWS
        xs = lax.dynamic_slice(padded, (image, row, 0, 0), (1, ROWS + 2, w + 2, c))[0]
        gs = lax.dynamic_slice(g, (image, row, 0, 0), (1, ROWS, w, features)).reshape(-1, features)
        views = [xs[i : i + ROWS, j : j + w] for i in range(3) for j in range(3)]
        patches = jnp.concatenate(views, axis=-1).reshape(-1, 9 * c)
        # The small side first: XLA:CPU is half as fast the other way round.
        return total + jnp.einsum("no,nk->ok", gs, patches)

    total = lax.fori_loop(0, b * (h // ROWS), add, jnp.zeros((features, 9 * c), x.dtype))
    return total.T.reshape(3, 3, c, features)


def _images_kernel_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
    # Unrolled: in a loop XLA:CPU has no fast convolution.
    total = jnp.zeros_like(kernel)
    for i in range(x.shape[0]):
        total += jax.vjp(functools.partial(conv2d, x[i : i + 1]), kernel)[1](g[i : i + 1])[0]
    return total


def _with_gradients(form: Form) -> Conv:
    """`conv2d` with one of its gradients replaced."""

    @jax.custom_vjp
    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv2d(x, kernel)

    def backward(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = kept
        dx, dk = jax.vjp(conv2d, x, kernel)[1](g)
        if form == "flipped":
            dx = _flipped_input_gradient(x, kernel, g)
        if form == "blocks" and x.shape[1] >= FULL and x.shape[-1] > 1:
            dk = _blocks_kernel_gradient(x, kernel, g)
        if form == "images" and x.shape[1] >= FULL // 2:
            dk = _images_kernel_gradient(x, kernel, g)
        return dx, dk

    conv.defvjp(lambda x, kernel: (conv2d(x, kernel), (x, kernel)), backward)
    return conv


def check_gradients() -> None:
    """The forms have the library's gradients."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, g = jax.random.normal(keys[0], (2, FULL, 10, 3)), jax.random.normal(keys[1], (2, FULL, 10, 4))
    kernel = jax.random.normal(keys[2], (3, 3, 3, 4))
    expected = jax.vjp(conv2d, x, kernel)[1](g)
    for form in get_args(Form):
        for found, e in zip(jax.vjp(_with_gradients(form), x, kernel)[1](g), expected, strict=True):
            np.testing.assert_allclose(found, e, atol=1e-4 * np.abs(e).max())


class _FlaxDropout(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dropout(self.rate, deterministic=not train)(x)


def build(side: int, freeze: str, conv: Conv = conv2d, dropout: Any = Dropout) -> Callable[[], Any]:
    """One compiled training step on noise, as a function of nothing."""
    config = get_network("unet2d")
    variables = init_variables(config, jax.random.key(0))
    labels = label_parameters(variables["params"], get_rules(freeze))
    running = frozen_batch_norms(labels)
    trained, frozen = split_parameters(variables["params"], labels)
    loss, optimiser = get_slice_loss("bce", config.outputs), optax.adam(1e-4)

    def step(trained: Any, stats: Any, opt_state: Any, frozen: Any, x: jax.Array, target: jax.Array) -> Any:
        def objective(trained: Any) -> tuple[jax.Array, Any]:
            variables = {"params": merge_parameters(trained, frozen), "batch_stats": stats}
            rngs = {"dropout": jax.random.key(1)}
            module = config.module()
            logits, moved = module.apply(variables, x, train=True, running=running, rngs=rngs, mutable=["batch_stats"])
            return loss(logits, target, None), moved["batch_stats"]

        (value, moved), grads = jax.value_and_grad(objective, has_aux=True)(trained)
        updates, opt_state = optimiser.update(grads, opt_state, trained)
        return optax.apply_updates(trained, updates), moved, opt_state, value

    x = jax.random.normal(jax.random.key(2), (BATCH, side, side, config.example().shape[-1]))
    target = jax.random.bernoulli(jax.random.key(3), 0.1, (BATCH, side, side, len(config.outputs)))
    given = (trained, variables["batch_stats"], optimiser.init(trained), frozen, x, target.astype(jnp.float32))
    with mock.patch.object(unet2d, "conv2d", conv), mock.patch.object(unet2d, "Dropout", dropout):
        compiled = jax.jit(step).lower(*given).compile()
    return lambda: jax.block_until_ready(compiled(*given))


FORMS: dict[str, Callable[[int], Callable[[], Any]]] = {
    "library": functools.partial(build, freeze="none"),
    "flax_dropout": functools.partial(build, freeze="none", dropout=_FlaxDropout),
    "flipped": functools.partial(build, freeze="none", conv=_with_gradients("flipped")),
    "blocks": functools.partial(build, freeze="none", conv=_with_gradients("blocks")),
    "images": functools.partial(build, freeze="none", conv=_with_gradients("images")),
    "library, frozen": functools.partial(build, freeze="first_two"),
    "flax_dropout, frozen": functools.partial(build, freeze="first_two", dropout=_FlaxDropout),
}


def measure(side: int, rounds: int) -> dict[str, list[float]]:
    """Seconds a step, a list a form, taken in turn."""
    programs = {name: form(side) for name, form in FORMS.items()}
    seconds: dict[str, list[float]] = {n: [] for n in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main(_: list[str]) -> None:
    """Measure every form at every size, print the table and write the JSON."""
    check_gradients()
    load = [os.getloadavg()[0]]
    sizes = {}
    print(f"{'side':>4}  {'form':<22}{'seconds':>9}{'ratio':>8}   (to library)")
    for side in map(int, SIDES.value):
        seconds = measure(side, ROUNDS.value)
        own = seconds["library"]
        sizes[str(side)] = {
            name: {
                "median_seconds": statistics.median(s),
                "least_seconds": min(s),
                "ratio_to_library": statistics.median(a / b for a, b in zip(s, own, strict=True)),
            }
            for name, s in seconds.items()
        }
        for name, row in sizes[str(side)].items():
            print(f"{side:>4}  {name:<22}{row['median_seconds']:>9.3f}{row['ratio_to_library']:>8.2f}", flush=True)
    if OUT.value:
        path = Path(OUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        load.append(os.getloadavg()[0])
        machine = {"backend": jax.default_backend(), "cores": os.cpu_count(), "machine": platform.machine()}
        result = {
            "machine": machine,
            "jax": jax.__version__,
            "batch": BATCH,
            "rounds": ROUNDS.value,
            "load_average_before_and_after": load,
            "sides": sizes,
        }
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
