"""What was prepared of a data set of slices, in a few lines: sizes, imbalance, seconds, what was left out."""

import statistics

from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.volume_summary import seconds_of

_SHOWN = 5


def slice_summary(store: SliceStore) -> str:
    """The lines that `prepare` prints for a data set of slices."""
    m, spec = store.manifest, store.spec
    counts = []
    for split in ("train", "test"):
        names = store.subjects(split)
        counts.append(f"{len(names)} volumes ({len(store.samples(names))} slices) for {split}")
    samples = store.samples(store.subjects())
    lines = [
        f"{spec.name}: " + ", ".join(counts).replace("for train,", "for training,"),
        f"slices: {spec.planes.pixels[0]}x{spec.planes.pixels[1]} pixels, {_scaling(store)}, "
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
    times = seconds_of(store)
    whole = sum(sum(v) for v in times.values())
    lines.append(
        "seconds a volume: "
        + ", ".join(f"{k} {statistics.mean(v):.2f} ({sum(v) / whole:.0%})" for k, v in times.items() if whole)
    )
    lines += _some("warning: ", m["warnings"])
    lines += _some(
        "excluded: ", [f"{e['subject']}: {e['reason']}" for e in m["exclusions"]], shown=len(m["exclusions"])
    )
    if m.get("unused"):
        some = ", ".join(m["unused"][:_SHOWN]) + (" ..." if len(m["unused"]) > _SHOWN else "")
        lines.append(f"not needed for {spec.planes.max_slices} slices: {len(m['unused'])} volume(s), {some}")
    lines.append(f"store: {store.where}")
    return "\n".join(lines)


def _scaling(store: SliceStore) -> str:
    spec = store.spec
    if spec.planes.scaling == "window" and spec.planes.window:
        return f"window {spec.planes.window[0]:g} to {spec.planes.window[1]:g}"
    return "z-scored by volume"


def _some(head: str, sentences: list[str], shown: int = _SHOWN) -> list[str]:
    lines = [head + s for s in sentences[:shown]]
    if len(sentences) > shown:
        lines.append(f"{head}and {len(sentences) - shown} more: see manifest.json")
    return lines
