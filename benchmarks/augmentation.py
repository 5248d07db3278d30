"""How long does it take to augment a batch on the device, and how much of a training step is that?

    python -m benchmarks.augmentation [--networks=switch8x2,unet3d256] [--noquick] [--torchio]

Each form alone, on random patches of the network's size: mirroring, all 3D rotations, the default recipe's (mirroring,
affine, intensity), the look drawn anew for each patch (`--randomisation`), and, "drawn", whole images drawn from label
maps of twice the resolution (`prepare --from_labels`). They take turns with a training step that augments nothing. Of
`unet2d` there is nothing to measure, as the liver report augments no slice. With --torchio the same images are drawn by
TorchIO too (`pip install torchio`), on the CPU.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, environment, ratio, summary, write_result
from benchmarks.sizes import Size
from benchmarks.steps import assemble, keep_those_that_fit, runner
from tlseg_jax.datasets.label_names import LABEL_NAMES
from tlseg_jax.datasets.structures import Labels
from tlseg_jax.input.augment import Augmentation, augment_batch
from tlseg_jax.input.synthesis.classes import class_table
from tlseg_jax.input.synthesis.draw import Synthesis, draw_batch

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

TORCHIO = flags.DEFINE_bool("torchio", False, "Draw images by TorchIO too.")

NETWORKS = ("switch8x2",)
FACTOR = 2
"""Voxels of the map to one of a drawn image, on each axis."""

FORMS: Mapping[str, Augmentation] = {
    "mirrored": Augmentation(flip_left_right=True),
    "rotated": Augmentation(random_rotations=True),
    "default": Augmentation(flip_left_right=True, intensity=True, affine=True),
    "randomised": Augmentation(flip_left_right=True, randomise=True),
}


def _by_step(function: Callable[..., object], *given: jax.Array) -> Callable[[], object]:
    """A compiled function of `given` and the number of a step, which goes up with each call."""
    program, step = jax.jit(function), 0

    def run() -> object:
        nonlocal step
        step += 1
        return jax.block_until_ready(program(*given, jnp.int32(step)))

    return run


def _by_torchio(size: Size) -> Callable[[], object]:
    """A batch of images drawn by TorchIO from maps of blocks, as the other's."""
    import torch

    from benchmarks.peers.drawn import Drawing

    count = len(class_table(LABEL_NAMES["FreeSurfer"], Labels.of(11, 50)).values)
    blocks = torch.randint(0, count, (size.batch, *(-(-n * FACTOR // 8) for n in size.shape)))
    for axis, side in enumerate(size.shape, 1):
        blocks = blocks.repeat_interleave(8, axis).narrow(axis, 0, side * FACTOR)
    drawing = Drawing(count, FACTOR, 0)
    return lambda: [drawing.draw(label[None]) for label in blocks]


def measure(size: Size, dtype: str, rounds: int) -> dict[str, Any]:
    """The forms at one size, in turn with the training step."""
    built = assemble(size.network, dtype=dtype, shape=size.shape, batch=size.batch)
    image, label = built.batch["image"].astype(jnp.float32), built.batch["label"]

    def form(augmentation: Augmentation) -> Callable[[], object]:
        return _by_step(lambda image, label, step: augment_batch(image, label, 0, step, augmentation), image, label)

    def drawn() -> Callable[[], object]:
        maps = Synthesis(
            class_table(LABEL_NAMES["FreeSurfer"], Labels.of(11, 50)),
            size.shape,
            (2.0,) * 3,
            (FACTOR,) * 3,
            structures=1,
        )
        count = len(maps.table.values)
        blocks = jax.random.randint(jax.random.key(0), [size.batch, *(-(-n // 8) for n in maps.map_sides)], 0, count)
        for axis, side in enumerate(maps.map_sides, 1):
            blocks = jax.lax.slice_in_dim(jnp.repeat(blocks.astype(jnp.uint8), 8, axis), 0, side, axis=axis)
        shares = jnp.full((size.batch, count), 1 / count)
        return _by_step(lambda classes, shares, step: draw_batch(classes, shares, 0, step, maps), blocks, shares)

    programs = {"step": runner(built)} | {name: form(augmentation) for name, augmentation in FORMS.items()}
    if len(size.shape) == 3:
        programs["drawn"] = drawn()
    if len(size.shape) == 3 and TORCHIO.value:
        programs["TorchIO"] = _by_torchio(size)
    seconds = alternate(keep_those_that_fit(programs), rounds, warmup=1)
    return size.case(dtype) | {
        **{f"seconds_{name}": summary(s) for name, s in seconds.items()},
        **{f"ratio_{name}_to_step": ratio(s, seconds["step"]) for name, s in seconds.items() if name != "step"},
    }


def main() -> None:
    """Measure every network, print and write."""
    started, cases = environment(), []
    for size in common_flags.sizes(NETWORKS):
        for dtype in common_flags.dtypes(("float32",)):
            case = measure(size, dtype, common_flags.rounds())
            cases.append(case)
            there = [name for name in (*FORMS, "drawn", "TorchIO") if f"seconds_{name}" in case]
            shares = {name: case[f"ratio_{name}_to_step"]["median"] for name in there}
            told = ", ".join(f"{n} {1e3 * case[f'seconds_{n}']['median']:.3g} ms ({shares[n]:.0%})" for n in there)
            print(f"{size.name}, {dtype}: {told} of a step's {1e3 * case['seconds_step']['median']:.3g} ms", flush=True)
    result = {"environment": started, "sizes": common_flags.kind(), "cases": cases}
    write_result("augmentation", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
