"""Muon for the kernels of convolutions: those of nearly one shape are orthogonalised together, in one loop."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, MuonState, scale_by_muon

ADAMS_LENGTH = 0.2
"""Root mean square of Muon's updates: about that of Adam's, so that one rate fits (Liu et al. 2025, section 2.2)."""

NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients of each step (Jordan et al. 2024); given one by one they are a loop, which is compiled once a group."""

PADDING = 0.05
"""What padding may add to the operations of all kernels' Newton-Schulz steps, as a share of them."""

Shape = tuple[int, int]
"""(short side, long side) of a matrix."""

Group = tuple[Shape, tuple[int, ...]]
"""What matrices are padded to, and which they are, by their places in a list."""


def matrix_shape(kernel: Sequence[int]) -> Shape:
    """Sides of the matrix that a kernel of a shape is, (all that a voxel of its output sums over, output channels)."""
    short, long = sorted((math.prod(kernel[:-1]), kernel[-1]))
    return short, long


def operations(shape: Shape) -> int:
    """Of one Newton-Schulz step of a matrix: two products with it of its Gram matrix, and that matrix's square."""
    short, long = shape
    return 4 * short**2 * long + 2 * short**3


def group_shapes(shapes: Sequence[Shape]) -> list[Group]:
    """Which matrices are orthogonalised together.

    Those of one shape are. Then, again and again, the two groups are joined whose padding to one shape adds the fewest
    operations, while all that was added is at most `PADDING` of what the matrices take by themselves.

    Returns:
      Groups in which every matrix is once.
    """
    groups: list[Group] = [(s, tuple(i for i, t in enumerate(shapes) if t == s)) for s in sorted(set(shapes))]

    def join(a: Group, b: Group) -> tuple[int, Group]:
        shape = max(a[0][0], b[0][0]), max(a[0][1], b[0][1])
        added = sum((operations(shape) - operations(own)) * len(places) for own, places in (a, b))
        return added, (shape, a[1] + b[1])

    left = PADDING * sum(map(operations, shapes))
    while len(groups) > 1:
        (added, joined), a, b = min((join(a, b), a, b) for a, b in itertools.combinations(groups, 2))
        if added > left:
            break
        left -= added
        groups = [g for g in groups if g not in (a, b)] + [joined]
    return groups


def stack(kernels: Sequence[jax.Array], groups: Sequence[Group]) -> list[jax.Array]:
    """(matrices, short side, long side) of each group, what a matrix lacks of them in zeros."""

    def padded(kernel: jax.Array, shape: Shape) -> jax.Array:
        matrix = kernel.reshape(-1, kernel.shape[-1])
        matrix = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
        return jnp.pad(matrix, [(0, to - side) for side, to in zip(matrix.shape, shape, strict=True)])

    return [jnp.stack([padded(kernels[i], shape) for i in places]) for shape, places in groups]


def unstack(stacks: Sequence[jax.Array], groups: Sequence[Group], shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """Kernels of these shapes out of what `stack` made."""
    found: dict[int, jax.Array] = {}
    for matrices, (_, places) in zip(stacks, groups, strict=True):
        for matrix, i in zip(matrices, places, strict=True):
            short, long = matrix_shape(shapes[i])
            own = matrix[:short, :long]
            found[i] = (own if shapes[i][-1] == long else own.T).reshape(shapes[i])
    return [found[i] for i in range(len(shapes))]


def scale_by_grouped_muon(momentum: float) -> optax.GradientTransformation:
    """`optax.contrib.scale_by_muon` of a tree of kernels, with as many loops as there are groups (`group_shapes`).

    A kernel is one matrix, of all that a voxel of its output sums over by its output channels. Zeros that are added to
    a matrix stay zeros in its Gram matrix and in every product with that, and its norm is what it was: the updates
    differ from those of each kernel by itself in rounding only, and the state not at all.

    Args:
      momentum: decay of the gradients' mean (Nesterov's).

    Returns:
      A transformation whose state is that of `scale_by_muon`: a momentum a kernel, in its own shape.
    """
    muon = scale_by_muon(
        NEWTON_SCHULZ, beta=momentum, weight_dimension_numbers=lambda stacks: [MuonDimensionNumbers(1, 2)] * len(stacks)
    )

    def update(grads: Any, state: MuonState, params: Any = None) -> tuple[Any, MuonState]:
        del params
        kernels, tree = jax.tree.flatten(grads)
        shapes = [k.shape for k in kernels]
        groups = group_shapes([matrix_shape(s) for s in shapes])
        stacked = state._replace(mu=stack(jax.tree.leaves(state.mu), groups))
        out, moved = muon.update(stack(kernels, groups), stacked)
        # optax's momentum is a list of stacks by now; what is kept, and written to checkpoints, is the kernels' own.
        updates, mu = (jax.tree.unflatten(tree, unstack(s, groups, shapes)) for s in (out, moved.mu))
        return updates, moved._replace(mu=mu)

    return optax.GradientTransformation(muon.init, update)  # type: ignore[arg-type]


def scale_by_muon_and_adam(momentum: float, adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for the kernels of convolutions, `adam` for biases and norms.

    What Muon takes of the momentum is the nearest matrix whose singular values are one (five Newton-Schulz steps), so
    that directions in which gradients are small are learnt as fast as the others.

    Args:
      momentum: decay of the gradients' mean (Nesterov's).
      adam: of everything that is no kernel.
    """

    def lengthen(updates: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(lambda u: u * ADAMS_LENGTH * matrix_shape(u.shape)[1] ** 0.5, updates)

    muon = optax.chain(scale_by_grouped_muon(momentum), optax.stateless(lengthen))

    def whose(params: Any) -> Any:
        return jax.tree.map(lambda p: "muon" if p.ndim > 2 else "adam", params)

    return optax.multi_transform({"muon": muon, "adam": adam}, whose)
