"""Volumes to a prepared data set of slices on disk: in parallel, resumable, with what failed named."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.layouts.found import Exclusion, Found, check_any
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.prepare import check_marked
from tlseg_jax.preprocess.slice_choice import cap, volumes_for
from tlseg_jax.preprocess.slice_split import split_volumes
from tlseg_jax.preprocess.slice_subject import natural_order, read_slices
from tlseg_jax.preprocess.split_map import earlier_sides, unite_scans
from tlseg_jax.preprocess.store.provenance import is_synthetic, write_manifest
from tlseg_jax.preprocess.store.records import Records, doubts_of
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.whole import Whole

_NOT_SHAPING = ("name", "max_slices", "test_slices", "test_volumes", "split_group", "flip_left_right", "mirror_pairs")
"""Fields of a spec that no volume's arrays depend on."""


def prepare_slices(
    spec: DatasetSpec,
    source: Path,
    store_root: Path,
    *,
    layout: str = "auto",
    desc: str = "",
    workers: int = 2,
    test_fraction: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> SliceStore:
    """Prepare the volumes of `source` into `store_root/spec.name/`; for the arguments see `Slices`, `Whole.prepare`."""
    whole = Slices(spec, source, store_root, test_fraction=test_fraction)
    whole.prepare(layout=layout, desc=desc, workers=workers, overwrite=overwrite, progress=progress)
    return SliceStore(whole.folder)


@dataclasses.dataclass(frozen=True)
class Slices(Whole):
    """A data set of slices.

    Volumes are taken in natural order, and only as many as `max_slices` needs; of the last one only the first slices
    count. No shard knows how many slices the others find, so each prepares all of its volumes, and whoever merges takes
    the first of them all. A test fraction is of the volumes, the last ones.
    """

    read = staticmethod(read_slices)
    masks = False

    @property
    def shaping(self) -> dict[str, Any]:
        return {k: v for k, v in self.spec.to_dict().items() if k not in _NOT_SHAPING}

    def find(self, layout: str, desc: str) -> Found:
        found = find_scans(self.source, layout, desc=desc)
        check_any(len(found.scans), found.exclusions, self.source)
        check_marked(found.scans, self.spec)
        return dataclasses.replace(found, scans=tuple(sorted(found.scans, key=lambda f: natural_order(f.subject))))

    def same_rule(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a data set was split by the rule that is asked for now."""
        there, here = manifest.get("spec", {}), self.spec.to_dict()
        rule = ("max_slices", "test_slices", "test_volumes")
        return manifest.get("test_fraction") == self.test_fraction and all(there.get(k) == here[k] for k in rule)

    def next_wave(self, records: Records, left: int, workers: int) -> int:
        most, have = self.spec.planes.max_slices, sum(len(r["samples"]) for r in records.values())
        if not most or not left:
            return left
        return 0 if have >= most else min(left, volumes_for(most - have, have, len(records), self.spec, workers))

    def finish(self, found: Found, records: Records, failed: Mapping[str, str]) -> tuple[list[str], str]:
        spec, folder = self.spec, self.folder
        order, unused, excluded = cap([f.subject for f in found.scans], records, failed, spec.planes.max_slices)
        exclusions = [*found.exclusions, *(Exclusion(s, excluded[s]) for s in sorted(excluded, key=natural_order))]
        check_any(len(order), exclusions, self.source)
        records = {s: records[s] | {"order": i} for i, s in enumerate(order)}
        warnings = doubts_of({s: records[s] for s in order})
        warnings += [w for s in order for w in records[s]["details"]["warnings"]]
        warnings += unite_scans(records)
        given = {f.subject: f.split for f in found.scans if f.subject in records and f.split}
        earlier = earlier_sides(records, given, spec.split_group, self.store_root, folder, self.same_rule)
        persons = {s: str(records[s]["person"]) for s in order}
        sides, of_split = split_volumes(
            order,
            {s: len(records[s]["samples"]) for s in order},
            persons,
            given,
            spec,
            self.test_fraction,
            earlier.own,
            earlier.others,
        )
        for s, side in sides.items():
            records[s]["split"] = side
        warnings += of_split + earlier.warnings
        write_manifest(
            folder,
            kind=SliceStore.kind,
            spec=spec.to_dict(),
            parameters={},
            source=str(self.source.resolve()),
            layout=found.layout,
            synthetic=is_synthetic(self.source),
            test_fraction=self.test_fraction,
            persons=earlier.new_map([], {persons[s]: sides[s] for s in order}),
            subjects={s: records[s] for s in order},
            unused=unused,
            exclusions=[dataclasses.asdict(e) for e in exclusions],
            warnings=warnings,
        )
        why = f" as {spec.planes.max_slices} slices were asked for" if unused else ""
        return order, f"{len(exclusions)} excluded, {len(unused)} not needed{why}"
