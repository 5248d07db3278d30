"""XLA folds no large constants while it compiles: it would warn, and a start would take minutes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

COMPILE = """
import sys
import jax, jax.numpy as jnp
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.input.augment import augmentation_for
from tlseg_jax.models.networks import get_network, init_variables, variable_shapes
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.train.step import batch_inputs, make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

name, *sizes = sys.argv[1:]
network, shape = get_network(name), tuple(map(int, sizes))
variables = variable_shapes(network)
labels = label_parameters(variables["params"], get_rules("none"))
if network.dimensions == 2:
    recipe = get_recipe("default", "slices", "pretrain")
    loss, inputs = label_loss(recipe.loss, network.outputs, False), batch_inputs()
    image = (*shape, network.channels)
else:
    recipe = get_recipe("default")
    augmentation = augmentation_for(get_spec("hdt_c"), intensity=True, affine=True)
    loss, inputs, image = label_loss(recipe.loss), batch_inputs(augmentation), shape
optimiser = make_optimiser(recipe, 100, labels)
state = jax.eval_shape(lambda v: init_state(v, optimiser), variables)
step = make_train_step(network, optimiser, loss, labels, inputs=inputs)
batch = {"image": jax.ShapeDtypeStruct(image, jnp.float16), "label": jax.ShapeDtypeStruct(shape, jnp.uint8)}
step.lower(state, batch).compile()
print("compiled")
"""


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("switch32", "2", "72", "112", "112"), id="switch32", marks=pytest.mark.slow),
        pytest.param(("switch8x2", "2", "72", "112", "112"), id="switch8x2", marks=pytest.mark.slow),
        pytest.param(("unet2d", "10", "512", "512"), id="unet2d", marks=pytest.mark.slow),
    ],
)
def test_no_constant_folding_alarm_at_the_papers_sizes(arguments: tuple[str, ...]) -> None:
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}  # a kept program is not compiled
    env["TF_CPP_MIN_LOG_LEVEL"] = "0"  # everything that XLA has to say
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stdout == "compiled\n", done.stderr
    assert "onstant folding" not in done.stderr
    assert "slow_operation_alarm" not in done.stderr
