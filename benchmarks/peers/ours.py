"""Our side: the training step of `benchmarks.steps`, and its values and gradients for the check."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.carry import Arrays, carry
from benchmarks.peers.case import CHECKED, Case
from benchmarks.steps import assemble, objective, random_batch
from tlseg_jax.models.networks import get_network, init_variables
from tlseg_jax.runtime import allocator
from tlseg_jax.train.step import batch_inputs


def channels_first(x: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(batch, ..., channels) -> (batch, channels, ...) float32."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(x, np.float32), -1, 1))


EDGE = 3.0
"""Standard deviations that the checked batch norms stand away from the ReLU's edge."""


def _off_the_edge(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with batch norms' biases of +3 and -3 by turns.

    A value that rounding puts on the other side of zero changes the gradients by as much as its voxel weighs, 1% in a
    batch this small. With these biases ReLUs are on or off, hardly any on the edge.
    """

    def moved(path: Any, value: jax.Array) -> jax.Array:
        *_, module, name = (k.key for k in path)
        is_norm = module.startswith("bn") and name == "bias"
        return jnp.where(jnp.arange(value.size) % 2 == 0, EDGE, -EDGE) if is_norm else value

    return jax.tree_util.tree_map_with_path(moved, params)  # type: ignore[no-any-return]


class Ours:
    """The JAX side of one case."""

    def __init__(self, case: Case) -> None:
        """Take a case; nothing is compiled yet."""
        allocator.compute_in_caller()
        self.case = case
        self.config = dataclasses.replace(get_network(case.size.network), dtype=case.dtype)
        self._state: Any = None

    def weights(self) -> Arrays:
        """The parameters and batch statistics that every timing starts from, as PyTorch has them."""
        return self._carried(init_variables(self.config, jax.random.key(0)))

    def _carried(self, variables: Mapping[str, Any]) -> Arrays:
        dimensions = self.config.dimensions
        return carry(variables["params"], dimensions) | carry(variables["batch_stats"], dimensions)

    def check(self, dtype: str, draw: int = 0) -> dict[str, Any]:
        """Logits, loss and gradients of the small batch: training mode, batch statistics, no dropout, no TF32.

        Returns:
          "image", "label" and "weights" as `pytorch.Pytorch.check` takes them, "logits" (batch, outputs, ...),
          "loss", and "gradients" under PyTorch's names.
        """
        config = dataclasses.replace(self.config, dtype=dtype, dropout=0.0)
        count, sides = CHECKED[config.dimensions]
        batch = random_batch(config, sides, count)
        image, target = batch_inputs()(batch, jnp.int32(0), 0)
        variables = init_variables(self.config, jax.random.key(draw))
        variables["params"] = _off_the_edge(variables["params"])
        loss, module = objective(config), config.module()

        def loss_of(params: Any) -> tuple[jax.Array, jax.Array]:
            given = {"params": params, "batch_stats": variables["batch_stats"]}
            logits: Any = module.apply(given, image, train=True, mutable=["batch_stats"])[0]
            return loss(logits, target), logits

        with jax.default_matmul_precision("highest"):
            (value, logits), gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(variables["params"])
        return {
            "image": channels_first(image),
            "label": np.asarray(batch["label"]),
            "logits": channels_first(logits),
            "loss": float(value),
            "gradients": carry(gradients, config.dimensions),
            "weights": self._carried(variables),
        }

    def batch(self) -> dict[str, Any]:
        """The batch that is timed: "image" (batch, channels, ...) float32 and "label" (batch, ...) uint8."""
        size = self.case.size
        batch = random_batch(self.config, size.shape, size.batch)
        image = batch["image"].reshape(size.batch, *size.shape, self.config.channels)
        return {"image": channels_first(image), "label": np.asarray(batch["label"])}

    def build(self) -> float:
        """Compile the step and do it once; gives the loss before it."""
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if self.case.tf32 else "highest")
        size = self.case.size
        # Adam, as PyTorch's side has it; the default recipe's Muon costs more a step and is another comparison.
        built = assemble(size.network, dtype=self.case.dtype, shape=size.shape, batch=size.batch, optimiser="adam")
        self._step, self._batch = built.step, built.batch
        self._state, metrics = built.step(built.state, built.batch)
        return float(metrics["loss"])

    def turn(self, steps: int) -> float:
        """Seconds a step of so many in a row; the host waits for the last only, as in training."""
        start = time.perf_counter()
        for _ in range(steps):
            self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))
        return (time.perf_counter() - start) / steps

    def backend(self) -> str:
        """ "cpu", "gpu" or "tpu"."""
        return jax.default_backend()
