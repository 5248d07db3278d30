"""Prepare a data set: scans and labels to the arrays that training reads.

Usage: tlseg prepare --dataset=hdt_c --source=DIR --store=DIR --label_values=36,37 --spacing=2
       tlseg prepare --dataset=lits --source=DIR --store=DIR
       tlseg prepare ... --shard=0/4    # one of four jobs; they merge, whichever ends last
       tlseg prepare --join=hdt_c,hdt_v --name=both --store=DIR
"""

from tlseg_jax.actions.prepare import SLICE_FIELDS, Preparing, prepare
from tlseg_jax.commands import cluster_flags, flags
from tlseg_jax.datasets.spec import PlaneGrid
from tlseg_jax.preprocess.store.shards import Shard
from tlseg_jax.runtime.messages import log

WHAT = flags.define(Preparing)
PLANES = flags.define(PlaneGrid, only=SLICE_FIELDS, absent="all", before="Slices: ")
flags.adopt(cluster_flags)


def main() -> None:
    """Parse the flags and prepare, or say what would be done."""
    asked = WHAT.settings()
    part = None if asked.join or asked.shard else _part()
    prepare(asked, PLANES.given(), WHAT.present() | PLANES.present(), part)


def _part() -> Shard | None:
    """Of several processes, this one's part of the scans."""
    found = cluster_flags.find()
    if found is None:
        return None
    log.info(f"{found.count} processes, told {found.source}: this one prepares shard {found.index}/{found.count}.")
    return Shard(found.index, found.count)
