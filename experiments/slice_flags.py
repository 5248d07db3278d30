"""The flags of `prepare` that only data sets of slices have."""

from collections.abc import Sequence

from absl import flags

from tlseg_jax.commands import flags as settings_flags
from tlseg_jax.datasets.slice_changes import changed_slices
from tlseg_jax.datasets.slice_spec import SliceSpec
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
CHANGES = settings_flags.define(SliceSpec, only=FIELDS, absent="all", before="Slices: ")

SLICES_ONLY = FIELDS
VOLUMES_ONLY = (
    "label_values",
    "spacing",
    "registration",
    "bias_correction",
    "normalise",
    "order",
    "split_seed",
    "mirror",
)


def refuse(names: Sequence[str], kind: str) -> None:
    """Refuse the flags that the data set's kind does not have.

    Raises:
      InputError: one of `names` was given.
    """
    given = [f"--{n}" for n in names if flags.FLAGS[n].present]
    if given:
        raise InputError(
            f"{', '.join(given)} cannot be used with --dataset={flags.FLAGS['dataset'].value}, which is a data set "
            f"of {kind}: leave it out."
        )


def with_flags(spec: SliceSpec, name: str | None) -> SliceSpec:
    """The data set with what the flags change, under another name where one is given.

    Raises:
      InputError: a flag's value cannot be read, or the values do not fit each other.
    """
    given = CHANGES.given() | ({"name": name} if name else {})
    return changed_slices(spec, given, STRUCTURES.value, f"--dataset={flags.FLAGS['dataset'].value}")
