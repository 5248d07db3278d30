"""Scans to a prepared data set on disk: in parallel, resumable, with what failed named."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.structures import LabelValues
from tlseg_jax.preprocess.layouts.found import Exclusion, Found, check_any
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.layouts.maps import find_maps
from tlseg_jax.preprocess.map_pipeline import map_factor
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare_cohort import box_of_labels, check_one_value, split_subjects, without_mirroring
from tlseg_jax.preprocess.prepare_subject import read_subject
from tlseg_jax.preprocess.reading.read import check_values_named
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles, UnnamedValuesError
from tlseg_jax.preprocess.steps import register
from tlseg_jax.preprocess.store.provenance import is_synthetic, write_manifest
from tlseg_jax.preprocess.store.records import Records, doubts_of
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.preprocess.whole import Whole
from tlseg_jax.runtime.errors import InputError


def prepare_dataset(
    spec: DatasetSpec,
    source: Path,
    store_root: Path,
    settings: PrepareSettings,
    *,
    layout: str = "auto",
    desc: str = "",
    label_values: LabelValues = (),
    workers: int = 2,
    test_fraction: float | None = None,
    split_seed: int = 0,
    overwrite: bool = False,
    mirror: bool | None = None,
    progress: bool = True,
) -> Store:
    """Prepare every scan of `source` into `store_root/spec.name/`.

    Args:
      label_values: values of the label map (or names of segments) that make the single structure, or ("all",); empty
        takes the spec's. For the others see `Volumes` and `Whole.prepare`.
    """
    spec = effective_spec(spec, label_values)
    whole = Volumes(spec, source, store_root, settings, test_fraction, split_seed, mirror)
    whole.prepare(layout=layout, desc=desc, workers=workers, overwrite=overwrite, progress=progress)
    return Store(whole.folder)


@dataclasses.dataclass(frozen=True)
class Volumes(Whole):
    """A data set of volumes.

    Attributes:
      mirror: whether training mirrors patches left to right; None: as the spec has it, but for a structure that lies on
        one side of every head.
    """

    settings: PrepareSettings = dataclasses.field(default_factory=PrepareSettings)
    split_seed: int = 0
    mirror: bool | None = None

    read = staticmethod(read_subject)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.settings.from_labels:
            map_factor(self.spec)
            if self.test_fraction:
                raise InputError(
                    "A data set of drawn images has nothing to test on: leave `test_fraction` out, and score on scans."
                )

    @property
    def fraction(self) -> float:
        """Share of the scans that is held out."""
        if self.settings.from_labels:
            return 0.0
        return self.spec.volumes.test_fraction if self.test_fraction is None else self.test_fraction

    def find(self, layout: str, desc: str) -> Found:
        found = find_source(self.source, self.settings, layout, desc)
        check_any(len(found.scans), found.exclusions, self.source)
        check_named(found.scans, self.spec)
        return found

    @property
    def shaping(self) -> dict[str, Any]:
        spec = self.spec
        keys = ("space", "dimensions", "spacing", "skull_strip", "normalise", "label_values")
        fields = {k: v for k, v in spec.to_dict().items() if k in keys}
        (fields["label_values"], *others) = fields["label_values"]
        if others:  # a single structure's are told as they always were, so that what was prepared stays
            fields |= {k: spec.to_dict()[k] for k in ("label_values", "structures", "exclusive")}
        elif fields["label_values"] == ["all"]:
            fields["label_values"] = "all"
        if spec.unmarked_value is not None:
            fields["unmarked_value"] = spec.unmarked_value
        return fields | self.settings.to_dict() | {f"register_{k}": v for k, v in register.PARAMETERS.items()}

    def finish(self, found: Found, records: Records, failed: Mapping[str, str]) -> tuple[list[str], str]:
        spec, folder = self.spec, self.folder
        exclusions = [*found.exclusions, *(Exclusion(s, r) for s, r in sorted(failed.items()))]
        check_any(len(records), exclusions, self.source)
        check_one_value(records, spec)
        spec, one_sided = without_mirroring(records, spec, self.mirror)
        persons, of_split = split_subjects(
            records, found.scans, spec, self.store_root, folder, self.fraction, self.split_seed
        )
        box, cut = box_of_labels(records, spec, folder)
        warnings = doubts_of(records) + one_sided + of_split + cut
        warnings += [w for s in sorted(records) for w in records[s]["details"].get("warnings", ())]
        write_manifest(
            folder,
            spec=spec.to_dict(),
            parameters=self.settings.to_dict() | {"register": dict(register.PARAMETERS)},
            source=str(self.source.resolve()),
            layout=found.layout,
            # Drawn heads must never pass for scans: models and figures made from them are marked.
            synthetic=is_synthetic(self.source),
            test_fraction=self.fraction,
            split_seed=self.split_seed,
            patch_box=box.to_dict() if box else None,
            **({"map_factor": list(map_factor(spec))} if self.settings.from_labels else {}),
            persons=persons,
            subjects={s: records[s] for s in sorted(records)},
            exclusions=[dataclasses.asdict(e) for e in exclusions],
            warnings=warnings,
        )
        return list(records), f"{len(exclusions)} excluded"


def find_source(source: Path, settings: PrepareSettings, layout: str = "auto", desc: str = "") -> Found:
    """What a source holds: scans with label maps, or label maps alone. Raises InputError: see `find_scans`."""
    return find_maps(source, layout, desc) if settings.from_labels else find_scans(source, layout, desc=desc)


def effective_spec(spec: DatasetSpec, label_values: LabelValues) -> DatasetSpec:
    """The spec with the label values that are asked for.

    Raises:
      InputError: there are several structures, each of which has values of its own.
    """
    if label_values and len(spec.structures) > 1:
        raise InputError(
            f"`label_values` is of one structure, and {spec.name} shows {spec.shown}: give `structures` instead."
        )
    values = (label_values,) if label_values else spec.label_values

    def in_order(of: LabelValues) -> LabelValues:  # numbers before names
        return tuple(sorted(set(of), key=lambda v: (isinstance(v, str), v)))

    return spec.changed(label_values=tuple(map(in_order, values)))


def check_marked(scans: Sequence[ScanFiles], spec: DatasetSpec) -> None:
    """Raise InputError: a scan is said to mark what the data set does not show."""
    for files in scans:
        if unknown := [s for s in files.marked if s not in spec.structures]:
            raise InputError(
                f"{files.subject} is listed as marking {unknown[0]}, and {spec.name} shows {spec.shown}: correct the "
                "column 'structures' of the list, or name the structure with `structures`."
            )


def check_named(scans: Sequence[ScanFiles], spec: DatasetSpec) -> None:
    """Check that the first label map holds one value, where none is named, before the work of a whole folder.

    Raises:
      InputError: it holds several, which it lists; or see `check_marked`.
    """
    check_marked(scans, spec)
    if spec.label_values != ((),) or not scans or scans[0].label is None:
        return
    try:
        check_values_named(scans[0].label, spec.labels)
    except UnnamedValuesError as e:
        raise InputError(str(e)) from None
    except ExclusionError:
        pass  # that scan is excluded with its reason
