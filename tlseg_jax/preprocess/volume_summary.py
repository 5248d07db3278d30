"""What was prepared of a data set of volumes, for the terminal."""

import statistics

from tlseg_jax.preprocess.store.store import BaseStore, Store


def seconds_of(store: BaseStore) -> dict[str, list[float]]:
    """Step of the preparation -> seconds of each subject that went through it."""
    times: dict[str, list[float]] = {}
    for r in store.manifest["subjects"].values():
        for k, v in r["seconds"].items():
            times.setdefault(k, []).append(v)
    return times


def volume_summary(store: Store) -> str:
    """What was prepared, in a few lines."""
    m = store.manifest
    train, test = len(store.subjects("train")), len(store.subjects("test"))
    lines = [
        f"{store.spec.name}: {train} for training, {test} for test",
        "grid: " + "x".join(map(str, store.spec.volumes.dimensions)) + f" voxels, {store.spec.volumes.space} space",
    ]
    if store.patch_box:
        a, b = store.patch_box.start, store.patch_box.stop
        spans = ", ".join(f"{n} {i} to {j - 1}" for n, i, j in zip("xyz", a, b, strict=True))
        lines.append("patch: " + "x".join(map(str, store.patch_box.size)) + f" voxels ({spans})")
    means = (f"{k} {statistics.mean(v):.1f}" for k, v in seconds_of(store).items())
    lines.append("seconds a scan: " + ", ".join(means))
    lines += [f"warning: {w}" for w in m["warnings"]]
    lines += [f"excluded: {e['subject']}: {e['reason']}" for e in m["exclusions"]]
    lines.append(f"store: {store.where}")
    return "\n".join(lines)
