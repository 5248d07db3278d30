"""The flags that every benchmark has, defined once, so that several can be imported together.

A part's module says `flags.adopt_module_key_flags(common_flags)`, reads the flags through the functions here, and
ends with `common_flags.run(main)`.
"""

from collections.abc import Callable, Sequence

import jax
from absl import flags

from benchmarks.sizes import Kind, Size, get_sizes
from tlseg_jax.commands import cli
from tlseg_jax.models.networks import NETWORKS, get_network
from tlseg_jax.runtime.choose import choose

ROUNDS = flags.DEFINE_integer(
    "rounds", 20, "Timed rounds, after some to warm up; at reduced sizes 5 unless given.", lower_bound=1
)
OUT = flags.DEFINE_string("out", None, "JSON file to write; default: benchmarks/results/<machine>/<part>.json.")
CHOSEN = flags.DEFINE_list("networks", None, "Networks to measure, by name; default: all of the part.")
QUICK = flags.DEFINE_bool("quick", None, "Reduced sizes; default: on a CPU, where the papers' sizes take minutes.")
TINY = flags.DEFINE_bool("tiny", False, "Sizes and rounds that only rehearse: what is timed then says nothing.")
DTYPES = flags.DEFINE_list("dtypes", None, "Types of the activations: float32, bfloat16; default: those of the part.")

REDUCED_ROUNDS = 5


def quick() -> bool:
    """Whether sizes are reduced: as --quick says, or on a CPU."""
    return TINY.value or (jax.default_backend() == "cpu" if QUICK.value is None else bool(QUICK.value))


def kind() -> Kind:
    """Which sizes are measured: as --tiny says, or --quick."""
    return "tiny" if TINY.value else "reduced" if quick() else "papers"


def sizes(default: Sequence[str] | None = None) -> list[Size]:
    """What each of `networks` is measured on.

    Raises:
      InputError: no network has a name that was given, or benchmarks/sizes.py says nothing of it.
    """
    return [size for name in networks(default) for size in get_sizes(name, kind())]


def rounds(reduced: bool | None = None) -> int:
    """Timed rounds: --rounds, or its default for full or reduced sizes (None: as `quick` says)."""
    if flags.FLAGS["rounds"].present or not (quick() if reduced is None else reduced):
        return ROUNDS.value
    return 1 if TINY.value else REDUCED_ROUNDS


def networks(default: Sequence[str] | None = None) -> tuple[str, ...]:
    """The networks that --networks names, or the part's.

    Args:
      default: the part's networks; None for all.

    Raises:
      InputError: no network has a name that was given.
    """
    names = CHOSEN.value or (list(NETWORKS) if default is None else default)
    return tuple(get_network(name).name for name in names)


def dtypes(default: Sequence[str] = ("float32", "bfloat16")) -> tuple[str, ...]:
    """The types that --dtypes names, or the part's.

    Raises:
      InputError: one is neither float32 nor bfloat16.
    """
    known = {d: d for d in ("float32", "bfloat16")}
    return tuple(choose("type of activations", d, known) for d in DTYPES.value or default)


def run(main: Callable[[], None]) -> None:
    """Parse the flags and call `main`; a fault in the input ends with one sentence and exit code 2."""
    cli.run(main)
