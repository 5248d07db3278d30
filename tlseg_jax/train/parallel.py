"""One training step on one device or on several: which devices, and what lies where on them.

one    a single device.
pmap   data parallel over local devices and hosts: every device trains on its rows of the batch, and exchanges the batch
       norms' statistics, the losses' sums and, raveled into one vector, the trained parameters' gradients.
mesh   jit with named shardings over ("data", "space"): the batch is divided over "data", and the first side of every
       volume over "space" (Hou et al. 2019); XLA inserts the halo exchanges.

A batch is always the global one, so that the way changes nothing but the rounding.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log

Way = Literal["one", "pmap", "mesh"]

DATA, SPACE = "data", "space"
"""Names of the axes of devices."""

Function = Callable[[Any, Any, Any], Any]
"""(state, batch, arrays) -> (state, metrics)."""


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Which devices share a training step, and how.

    Attributes:
      way: how the step is compiled.
      data: devices that share the batch's rows.
      space: devices that share the first side of each volume; 1 but for "mesh".
      devices: data * space of them, of all processes, row by row; () is the default one.
    """

    way: Way = "one"
    data: int = 1
    space: int = 1
    devices: tuple[jax.Device, ...] = ()

    @property
    def axis(self) -> str | None:
        """The name that collectives inside the step go by; None where there are none to write."""
        return DATA if self.way == "pmap" else None

    @property
    def processes(self) -> int:
        """Whose devices they are, in number."""
        return max(1, len({d.process_index for d in self.devices}))

    @property
    def waits(self) -> bool:
        """Whether each call is waited for: on CPU devices programs under way keep one another's collectives waiting."""
        return self.way != "one" and self.devices[0].platform == "cpu"

    @property
    def mesh(self) -> Mesh:
        """The devices by ("data", "space")."""
        grid = np.array(self.devices, object).reshape(self.data, self.space)
        return Mesh(grid, (DATA, SPACE), axis_types=(AxisType.Auto,) * 2)

    def alone(self) -> "Parallel":
        """What one of the devices does with its part, for counting: the exchanges of a mesh are XLA's and not in it."""
        return self if self.way == "pmap" else ONE

    def describe(self) -> str:
        """As "pmap over 4 devices" or "mesh of data:2,space:4"."""
        if self.way == "one":
            return "one device"
        hosts = f" of {self.processes} processes" if self.processes > 1 else ""
        if self.way == "pmap":
            return f"pmap over {self.data} device{'s' if self.data > 1 else ''}{hosts}"
        return f"mesh of data:{self.data},space:{self.space}{hosts}"

    def spread(self, tree: Any, lead: int = 0) -> Any:
        """Inside a mesh's program: rows over "data", and the first side over "space" where it divides.

        Args:
          tree: arrays (*lead axes, batch, side, ...).
          lead: axes before the batch.
        """
        if self.way != "mesh":
            return tree
        mesh = self.mesh

        def constrain(a: jax.Array) -> jax.Array:
            side = lead + 1
            divides = a.ndim > side and a.shape[side] % self.space == 0
            spec = PartitionSpec(*(None,) * lead, DATA, *((SPACE,) if divides else ()))
            return jax.lax.with_sharding_constraint(a, NamedSharding(mesh, spec))

        return jax.tree.map(constrain, tree)

    def compile(self, function: Function, lead: int = 0) -> Any:
        """`function` for these devices; the state is given away, and comes back whole on every device.

        Args:
          function: (state, batch, arrays) -> (state, metrics); of "pmap" it sees a device's rows of the batch.
          lead: axes of the batch's arrays before the rows: 1 for those of several steps.

        Returns:
          As `jax.jit` gives it, for what `place`, `split` and `replicate` give.
        """
        if self.way == "one":
            return jax.jit(function, donate_argnums=0)
        if self.way == "pmap":
            return jax.pmap(
                function,
                axis_name=DATA,
                in_axes=(None, lead, None),
                out_axes=None,
                devices=self.devices,
                donate_argnums=0,
            )
        mesh = self.mesh
        whole = NamedSharding(mesh, PartitionSpec())
        rows = NamedSharding(mesh, PartitionSpec(*(None,) * lead, DATA))
        return jax.jit(function, in_shardings=(whole, rows, whole), out_shardings=(whole, whole), donate_argnums=0)

    def split(self, batch: Any, lead: int = 0) -> Any:
        """This process's rows of a batch, NumPy arrays, as the program takes them.

        Args:
          batch: arrays (*lead axes, rows of this process, ...).
          lead: axes before the rows.
        """
        if self.way == "one":
            return batch
        if self.way == "pmap":
            here = self.data // self.processes
            return jax.tree.map(lambda a: _divided(np.asarray(a), lead, here), batch)
        sharding = NamedSharding(self.mesh, PartitionSpec(*(None,) * lead, DATA))
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a)), batch)

    def split_shapes(self, batch: Any) -> Any:
        """The shapes of what `split` gives for the shapes of a global batch, of all processes together."""
        if self.way != "pmap":
            return batch

        def divided(s: Any) -> jax.ShapeDtypeStruct:
            rows = s.shape[0] // self.data
            return jax.ShapeDtypeStruct((self.data, rows, *s.shape[1:]), s.dtype)

        return jax.tree.map(divided, batch)

    def device_shapes(self, batch: Any) -> Any:
        """The shapes of one device's part of a batch, which may be a little less where it does not divide."""

        def part(s: Any) -> jax.ShapeDtypeStruct:
            rows, *sides = s.shape
            if sides:
                sides[0] = math.ceil(sides[0] / self.space)
            return jax.ShapeDtypeStruct((math.ceil(rows / self.data), *sides), s.dtype)

        return jax.tree.map(part, batch)

    def replicate(self, tree: Any) -> Any:
        """Arrays, equal on all processes, whole on every device; those that are already are left as they are."""
        if self.way == "one":
            return tree
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda a: _replicated(a, whole), tree)


ONE = Parallel()
"""The default device."""


def local_state(tree: Any) -> Any:
    """Arrays that lie whole on several devices as arrays of one device of this process, without a copy.

    What is computed from them concerns no other device and no other process.
    """

    def local(a: Any) -> Any:
        several = isinstance(a, jax.Array) and len(a.sharding.device_set) > 1
        return a.addressable_data(0) if several else a

    return jax.tree.map(local, tree)


def _divided(a: np.ndarray[Any, Any], lead: int, parts: int) -> np.ndarray[Any, Any]:
    """(*lead, rows, ...) -> (*lead, parts, rows of a part, ...)."""
    return a.reshape(*a.shape[:lead], parts, a.shape[lead] // parts, *a.shape[lead + 1 :])


def _replicated(a: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(a, jax.Array) and a.is_fully_replicated and a.sharding.device_set == sharding.device_set:
        return a
    host = np.asarray(a)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def choose_parallel(
    asked: str | None, mesh: str | None, batch: int, sides: Sequence[int], multiple: int, accumulate: int = 1
) -> Parallel:
    """What `--parallel` and `--mesh` come to.

    Args:
      asked: "one", "pmap" or "mesh"; None: pmap where there is more than one device, over as many of a single
        process's devices as divide the batch, else one device.
      mesh: "data:2,space:4"; either axis may be left out.
      batch: the global batch's rows.
      sides: of a volume or slice; the first is the one that is divided over "space".
      multiple: what the network's poolings need a side to divide by.

    Raises:
      InputError: the batch, a side or the devices do not go with what was asked for.
    """
    devices = tuple(sorted(jax.devices(), key=lambda d: (d.process_index, d.id)))
    processes = jax.process_count()
    if batch % accumulate:
        raise InputError(
            f"`accumulate={accumulate}` does not divide the batch of {batch}: "
            f"give `batch_size={_near(batch, accumulate)}`."
        )
    if mesh is not None and asked not in (None, "mesh"):
        raise InputError(f"`mesh={mesh}` does not go with `parallel={asked}`: leave one of them out.")
    if mesh is not None or asked == "mesh":
        return _mesh(mesh, devices, batch, sides, multiple, accumulate)
    if asked == "one" and processes > 1:
        raise InputError(
            f"`parallel=one` in {processes} processes would train {processes} times the same: give `parallel=pmap`."
        )
    if asked == "one" or (asked is None and len(devices) == 1):
        return ONE
    rows = batch // accumulate
    if asked is None and processes == 1:
        used = max(n for n in range(1, len(devices) + 1) if rows % n == 0)
        what = f"batch {batch} on {used} of {len(devices)} devices"
        log.info(
            f"parallel: {what}, by pmap." if used > 1 else f"parallel: {what}; another `batch_size` would use more."
        )
        return Parallel("pmap", used, 1, devices[:used]) if used > 1 else ONE
    _check_rows(batch, len(devices), accumulate, f"`parallel=pmap` takes all {len(devices)} devices")
    found = Parallel("pmap", len(devices), 1, devices)
    log.info(f"parallel: {found.describe()}, batch {batch}.")
    return found


def _mesh(
    text: str | None, devices: tuple[jax.Device, ...], batch: int, sides: Sequence[int], multiple: int, accumulate: int
) -> Parallel:
    if text is None:
        raise InputError(
            f"`parallel=mesh` needs to know how the {len(devices)} device(s) are divided: give `mesh=data:N,space:K`, "
            "as in `mesh=data:2,space:4`."
        )
    data, space = _axes(text)
    processes = jax.process_count()
    here = len(devices) // processes
    if data * space > len(devices):
        raise InputError(
            f"`mesh={text}` needs {data * space} devices and there are {len(devices)}: give axes whose product is at "
            f"most {len(devices)}."
        )
    if processes > 1 and data * space != len(devices):
        raise InputError(
            f"`mesh={text}` takes {data * space} of {len(devices)} devices, and every one of the {processes} processes "
            f"must use all of its own: give axes whose product is {len(devices)}."
        )
    if here % space:
        raise InputError(
            f"`mesh={text}` would divide a volume over devices of several processes: a process has {here}, so give a "
            f"space axis that divides {here}."
        )
    _check_rows(batch, data, accumulate, f"`mesh={text}` divides it over {data}")
    if space > 1 and sides[0] % (multiple * space):
        need = multiple * space
        raise InputError(
            f"`mesh={text}` divides the first side of a volume, {sides[0]}, over {space} devices, and the network "
            f"needs it to divide by {need} ({multiple} x {space}): give a smaller space axis, or prepare the data set "
            f"from a TOML file whose patch_size begins with {math.ceil(sides[0] / need) * need}."
        )
    found = Parallel("mesh", data, space, devices[: data * space])
    log.info(f"parallel: {found.describe()}, batch {batch}.")
    return found


def _axes(text: str) -> tuple[int, int]:
    """(data, space) of "data:2,space:4"."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition(":")
        if name not in (DATA, SPACE) or name in sizes or not size.isdecimal() or int(size) < 1:
            raise InputError(
                f"`mesh={text}` cannot be read: give the axes data and space, each once with its number of devices, "
                "as in `mesh=data:2,space:4`."
            )
        sizes[name] = int(size)
    return sizes.get(DATA, 1), sizes.get(SPACE, 1)


def _check_rows(batch: int, parts: int, accumulate: int, who: str) -> None:
    need = parts * accumulate
    if batch % need:
        also = f" in {accumulate} micro-batches" if accumulate > 1 else ""
        raise InputError(
            f"The batch of {batch} does not divide: {who}{also}; give `batch_size={_near(batch, need)}`"
            + (", or fewer devices." if parts > 1 else ".")
        )


def _near(batch: int, need: int) -> int:
    """The least multiple of `need` from `batch` on."""
    return math.ceil(batch / need) * need
