"""The flags of where a command works: part of every command that trains."""

from tlseg_jax.actions import places
from tlseg_jax.commands import flags
from tlseg_jax.runtime import processes
from tlseg_jax.studies.workplace import Workplace

PLACE = flags.define(Workplace, leave_out=("progress", "cohort_spacing", "label_maps"), defaults={"workdir": "runs"})


def workplace() -> Workplace:
    """Where the flags have this command work.

    Raises:
      InputError: a folder cannot be had.
    """
    workdir, store = PLACE.text("workdir") or "runs", PLACE.text("store")
    return PLACE.settings(
        workdir=places.workdir(workdir), store=places.store(store) if store else None, progress=processes.is_chief()
    )
