"""What is gained where the features of the frozen levels are computed once and held on the device, and at what price?

    python -m benchmarks.features [--networks=switch32,switch8x2] [--dtypes=float32] [--quick] [--rounds=20]

The frozen step as a run with `--cache=device` takes it, which computes all levels of its patches anew, against the
same step on kept features of these patches and their mirror images; the two take turns on the same noise. The price is
told too: bytes a scan, and how many steps of gain pay for computing the features once.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from numpy.typing import NDArray

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, environment, ratio, summary, write_result
from benchmarks.sizes import Size
from benchmarks.steps import STEPS, objective
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.geometry import Box
from tlseg_jax.input.augment import Augmentation
from tlseg_jax.input.device_cache import cache_patches, cache_slices
from tlseg_jax.input.feature_cache import cache_features, cache_slice_features, feature_shapes
from tlseg_jax.models.networks import get_network, init_variables
from tlseg_jax.train.dispatch import Dispatch, cache_room
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import Step, batch_inputs, make_train_step, step_flops
from tlseg_jax.transfer.freeze import get_rules, label_parameters
from tlseg_jax.transfer.frozen_levels import frozen_levels

flags.adopt_module_key_flags(common_flags)

NETWORKS = ("switch32", "switch8x2", "unet2d")
"""Those whose features at the papers' sizes fit any device that trains them; --networks=unet3d256 takes 2 GB a scan."""


@dataclasses.dataclass(frozen=True)
class Noise:
    """What the caches ask of a prepared data set, drawn: a scan is one patch, or one slice."""

    shape: tuple[int, ...]
    folder: Path = Path("noise")

    partial = False

    @property
    def spec(self) -> "Noise":
        """For `planes`."""
        return self

    @property
    def planes(self) -> "Noise":
        """For `pixels`."""
        return self

    @property
    def pixels(self) -> tuple[int, ...]:
        """Sides of a slice."""
        return self.shape

    def samples(self, subjects: tuple[str, ...]) -> tuple[str, ...]:
        """One slice a scan."""
        return subjects

    def image(self, subject: str, box: Box) -> NDArray[np.float16]:
        """(x, y, z)."""
        del box
        return np.random.default_rng(int(subject)).standard_normal(self.shape, np.float32).astype(np.float16)

    def label(self, subject: str, box: Box) -> NDArray[np.uint8]:
        """(x, y, z)."""
        del box
        return (np.random.default_rng(int(subject)).random(self.shape, np.float32) < 0.1).astype(np.uint8)

    def volume_image(self, subject: str, channels: int) -> NDArray[np.float16]:
        """(1, x, y, channels)."""
        drawn = np.random.default_rng(int(subject)).standard_normal((1, *self.shape, channels), np.float32)
        return drawn.astype(np.float16)

    def codes(self, subject: str) -> NDArray[np.uint8]:
        """(1, x, y)."""
        return (np.random.default_rng(int(subject)).random((1, *self.shape), np.float32) < 0.1).astype(np.uint8)


def measure(size: Size, dtype: str, rounds: int) -> dict[str, Any]:
    """One network at one size and precision; see the module."""
    config = dataclasses.replace(get_network(size.network), dtype=dtype)
    flat = config.dimensions == 2
    variables = init_variables(config, jax.random.key(0))
    labels = label_parameters(variables["params"], get_rules(size.frozen))
    levels = frozen_levels(config, labels, "running")
    optimiser = make_optimiser(
        get_recipe("default", "slices", "finetune") if flat else get_recipe("default"), STEPS, labels
    )
    inputs = batch_inputs(Augmentation(flip_left_right=not flat))

    def step(levels: int, **how: Any) -> Step:
        return make_train_step(
            config, optimiser, objective(config), labels, inputs=inputs, feature_levels=levels, **how
        )

    store: Any = Noise(size.shape)
    subjects, room = tuple(map(str, range(size.batch))), cache_room()

    def features() -> Any:
        """The features of all scans, when the device is done with them."""
        if flat:
            kept = cache_slice_features(store, subjects, config, variables, levels, None, room)
        else:
            box = Box((0, 0, 0), size.shape)  # type: ignore[arg-type]  # three sides
            kept = cache_features(
                store, subjects, box, config, variables, levels, Augmentation(flip_left_right=True), room
            )
        jax.block_until_ready(kept.arrays)
        return kept

    features()  # compiles
    start = time.perf_counter()
    kept = features()
    once = time.perf_counter() - start
    images = (
        cache_slices(store, subjects, config.example().shape[-1], None, room)
        if flat
        else cache_patches(store, subjects, Box((0, 0, 0), size.shape), room)  # type: ignore[arg-type]
    )
    places: Any = {"index": np.arange(size.batch, dtype=np.int32)}
    places |= {"sample": places["index"]} if flat else {"start": np.zeros((size.batch, 3), np.int32)}
    # A GPU is never waited for in training, so neither is it here within a turn.
    count = 1 if jax.default_backend() == "cpu" else 10

    def turn(dispatch: Dispatch) -> Callable[[], object]:
        state = init_state(jax.tree.map(jnp.array, variables), optimiser)

        def train() -> object:
            nonlocal state
            for _ in range(count):
                state, metrics = dispatch(state, [places])
            return jax.block_until_ready(metrics)

        return train

    turns = {"computed": turn(Dispatch(step(0), 1, images)), "kept": turn(Dispatch(step(levels), 1, kept))}
    seconds = {name: [s / count for s in all_] for name, all_ in alternate(turns, rounds, warmup=1).items()}
    gain = summary(seconds["computed"])["median"] - summary(seconds["kept"])["median"]
    state = jax.eval_shape(lambda: init_state(variables, optimiser))
    shape = (size.batch, *size.shape)
    label = {"label": jax.ShapeDtypeStruct(shape, np.uint8)}
    channels = config.example().shape[-1:] if flat else ()
    flops = {
        "computed": step_flops(
            step(0, lowering="native"), state, label | {"image": jax.ShapeDtypeStruct((*shape, *channels), np.float16)}
        ),
        "kept": step_flops(
            step(levels, lowering="native"),
            state,
            label | {"features": feature_shapes(config, levels, size.shape, size.batch)},
        ),
    }
    return size.case(dtype) | {
        "frozen": size.frozen,
        "levels": levels,
        "step_seconds": {name: summary(s) for name, s in seconds.items()},
        "ratio_kept_to_computed": ratio(seconds["kept"], seconds["computed"]),
        "flops": flops,
        "share_of_flops": flops["kept"] / flops["computed"],
        "feature_bytes_a_scan": kept.nbytes / size.batch,
        "image_bytes_a_scan": images.nbytes / size.batch,
        "seconds_once_a_scan": once / size.batch,
        "steps_to_pay_a_scan": once / size.batch / gain if gain > 0 else None,
    }


def main() -> None:
    """Measure every network, print a line each and write the JSON."""
    started, reduced, cases = environment(), common_flags.quick(), []
    for size in common_flags.sizes(NETWORKS):
        for dtype in common_flags.dtypes(("float32",)):
            cases.append(measure(size, dtype, common_flags.rounds(reduced)))
            print(line(size, cases[-1]), flush=True)
    write_result(
        "features", {"environment": started} | {"sizes": common_flags.kind()} | {"cases": cases}, common_flags.OUT.value
    )


def line(size: Size, case: dict[str, Any]) -> str:
    """A case in words."""
    r, pay = case["ratio_kept_to_computed"], case["steps_to_pay_a_scan"]
    return (
        f"{size.name}, {case['dtype']}, {case['levels']} levels ({case['frozen']} frozen): "
        f"{case['step_seconds']['computed']['median']:.4f} s a step; with kept features {r['median']:.3f} "
        f"({r['low']:.3f} to {r['high']:.3f}) of that and {case['share_of_flops']:.0%} of its FLOPs, "
        f"for {case['feature_bytes_a_scan'] / 1e6:.3g} MB a scan (images: {case['image_bytes_a_scan'] / 1e6:.3g} MB), "
        + ("which nothing pays for" if pay is None else f"paid for by {pay:.1f} steps a scan")
    )


if __name__ == "__main__":
    common_flags.run(main)
