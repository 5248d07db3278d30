"""What was prepared, in a few lines: sizes, imbalance, seconds, what was left out."""

import statistics

from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store

_SHOWN = 5


def summary(store: AnyStore) -> str:
    """The lines that `prepare` prints for a data set."""
    m = store.manifest
    lines = _of_slices(store) if isinstance(store, SliceStore) else _of_volumes(store)
    times: dict[str, list[float]] = {}
    for r in m["subjects"].values():
        for k, v in r["seconds"].items():
            times.setdefault(k, []).append(v)
    digits = 2 if isinstance(store, SliceStore) else 1
    means = (f"{k} {statistics.mean(v):.{digits}f}" for k, v in times.items())
    lines.append("seconds a scan: " + ", ".join(means))
    shown = _SHOWN if isinstance(store, SliceStore) else len(m["warnings"])  # of many volumes' slices there are many
    lines += [f"warning: {w}" for w in m["warnings"][:shown]]
    if len(m["warnings"]) > shown:
        lines.append(f"warning: and {len(m['warnings']) - shown} more: see manifest.json")
    lines += [f"excluded: {e['subject']}: {e['reason']}" for e in m["exclusions"]]
    if m.get("unused"):
        some = ", ".join(m["unused"][:_SHOWN]) + (" ..." if len(m["unused"]) > _SHOWN else "")
        lines.append(f"not needed for {store.spec.planes.max_slices} slices: {len(m['unused'])} volume(s), {some}")
    lines.append(f"store: {store.where}")
    return "\n".join(lines)


def _of_volumes(store: Store) -> list[str]:
    train, test, grid = len(store.subjects("train")), len(store.subjects("test")), store.spec.volumes
    lines = [
        f"{store.spec.name}: {train} for training, {test} for test",
        "grid: " + "x".join(map(str, grid.dimensions)) + f" voxels, {grid.space} space",
    ]
    if store.patch_box:
        a, b = store.patch_box.start, store.patch_box.stop
        spans = ", ".join(f"{n} {i} to {j - 1}" for n, i, j in zip("xyz", a, b, strict=True))
        lines.append("patch: " + "x".join(map(str, store.patch_box.size)) + f" voxels ({spans})")
    return lines


def _of_slices(store: SliceStore) -> list[str]:
    m, spec = store.manifest, store.spec
    window = spec.planes.window if spec.planes.scaling == "window" else None
    scaled = f"window {window[0]:g} to {window[1]:g}" if window else "z-scored by volume"
    counts = []
    for split in ("train", "test"):
        names = store.subjects(split)
        counts.append(f"{len(names)} volumes ({len(store.samples(names))} slices) for {split}")
    samples = store.samples(store.subjects())
    lines = [
        f"{spec.name}: " + ", ".join(counts).replace("for train,", "for training,"),
        f"slices: {spec.planes.pixels[0]}x{spec.planes.pixels[1]} pixels, {scaled}, "
        f"{spec.planes.neighbours} neighbour(s) on each side",
    ]
    total = len(samples) * spec.planes.pixels[0] * spec.planes.pixels[1]
    for i, structure in enumerate(spec.structures):
        showing = sum(1 for s in samples if s.bits >> i & 1)
        pixels = sum(sum(r["details"]["label_pixels"].get(structure, ())) for r in m["subjects"].values())
        lines.append(
            f"{structure}: in {showing} of {len(samples)} slices ({showing / len(samples):.1%}), "
            f"{pixels / total:.2%} of all pixels"
        )
    return lines
