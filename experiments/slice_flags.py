"""The flags of `prepare` that only data sets of slices have."""

from absl import flags

from tlseg_jax.commands import flags as settings_flags
from tlseg_jax.datasets.spec import Kind, PlaneGrid
from tlseg_jax.runtime.errors import InputError

FIELDS = (
    "window",
    "pixels",
    "resize",
    "pixel_mm",
    "test_volumes",
    "max_slices",
    "with_structure",
    "without_structure",
    "neighbours",
)
"""Of a data set of slices, that flags change."""

STRUCTURES = flags.DEFINE_string(
    "structures",
    None,
    "Structures and the label values that make them, as in liver:1+2,tumour:2, or of a known table, as in "
    "freesurfer:caudate,putamen_left (also neuromorphometrics, totalsegmentator); other values are background.",
)
CHANGES = settings_flags.define(PlaneGrid, only=FIELDS, absent="all", before="Slices: ")

NOT_OF = {
    "volumes": FIELDS,
    "slices": (
        "label_values",
        "spacing",
        "registration",
        "bias_correction",
        "normalise",
        "order",
        "split_seed",
        "mirror",
    ),
}
"""Kind of data set -> the flags that it does not have."""


def refuse(kind: Kind) -> None:
    """Refuse the flags that the data set's kind does not have.

    Raises:
      InputError: one was given.
    """
    given = [f"--{n}" for n in NOT_OF[kind] if flags.FLAGS[n].present]
    if given:
        raise InputError(
            f"{', '.join(given)} cannot be used with --dataset={flags.FLAGS['dataset'].value}, which is a data set "
            f"of {kind}: leave it out."
        )
