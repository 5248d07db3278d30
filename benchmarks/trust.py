"""Does `predict --trust` know which predictions fail: predicted Dice beside plain pairwise Dice and the true Dice?

    python -m benchmarks.trust --run=RUN --stores=DIR/a,DIR/b [--spoiled=4] [--passes=8]

Scans with label maps that the model has never seen go through the passes; each person is judged by a calibration on the
others. Some of them are spoiled as well (noise, a bias field, motion, blur, half of the head missing), written as files
and segmented from the start, preprocessing included; they, too, are judged by the calibration on the other persons'
unspoiled scans. Plain pairwise Dice is the mean Dice of all pairs of the same passes (Zenk et al. 2024, arXiv
2406.03323). Nothing is timed but the passes against one.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from absl import flags
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import flags as common_flags
from benchmarks import stores as store_flags
from benchmarks.measure import RESULTS, alternate, environment, machine_name, ratio, summary, write_result
from benchmarks.plots import save
from tlseg_jax.actions import places
from tlseg_jax.checkpoints.exported import load_saved
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.evaluate.predict import own_values, predict_scan
from tlseg_jax.evaluate.trust import measure
from tlseg_jax.evaluate.trust.calibration import Calibration, HeldOut, calibrate, leave_one_person_out
from tlseg_jax.evaluate.trust.passes import make_passes, may_mirror
from tlseg_jax.evaluate.trust.trusting import Trust
from tlseg_jax.evaluate.trust.verdict import Verdict, judge
from tlseg_jax.preprocess.codes import mask_of
from tlseg_jax.preprocess.original import original_scan
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.preprocess.store.any_store import open_any_store
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.calibrate_trust import SEED, Members, Passing, measured, members_of, pass_store
from tlseg_jax.train.predictors import load_predictor

flags.adopt_module_key_flags(common_flags)
flags.adopt_module_key_flags(store_flags)

RUN = flags.DEFINE_string("run", "brain", "A run, an exported model or the name of one in the package.")
SPOILED = flags.DEFINE_integer("spoiled", 4, "Persons whose scans are spoiled as well.")
PASSES = flags.DEFINE_integer("passes", 8, "Passes.", lower_bound=2)

Image = NDArray[np.float32]


def _motion(image: Image, rng: np.random.Generator) -> Image:
    """A third of the lines of k-space along the second axis taken with the head 12 voxels away."""
    lines = np.fft.fftn(image)
    phase = np.exp(2j * np.pi * np.fft.fftfreq(image.shape[1]) * 12)
    moved = np.asarray(rng.random(image.shape[1]) < 0.35)
    moved[0] = False
    lines[:, moved, :] *= phase[moved][None, :, None]
    return np.abs(np.fft.ifftn(lines)).astype(np.float32)


def _noise(share: float) -> Callable[[Image, np.random.Generator], Image]:
    def spoil(image: Image, rng: np.random.Generator) -> Image:
        top = np.percentile(image[image > 0], 99)
        return np.clip(image + share * top * rng.standard_normal(image.shape, np.float32), 0, None)

    return spoil


def _bias(image: Image, rng: np.random.Generator) -> Image:
    return image * np.exp(1.2 * np.linspace(-1, 1, image.shape[0], dtype=np.float32))[:, None, None]


def _blur(image: Image, rng: np.random.Generator) -> Image:
    return np.asarray(ndimage.gaussian_filter(image, 3.5), np.float32)


def _halved(image: Image, rng: np.random.Generator) -> Image:
    out = image.copy()
    out[:, : image.shape[1] // 2] = 0
    return out


SPOILS: Mapping[str, Callable[[Image, np.random.Generator], Image]] = {
    "noise of 15%": _noise(0.15),
    "noise of 35%": _noise(0.35),
    "bias field": _bias,
    "motion": _motion,
    "blur": _blur,
    "half missing": _halved,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A structure of a scan.

    Attributes:
      kind: "as it is", or how it was spoiled.
      scan: a number for each.
      dice: the true one.
    """

    kind: str
    scan: int
    predicted: float
    agreement: float
    dice: float


PLAIN = "as it is"


def held_out_cases(rows: Sequence[HeldOut]) -> tuple[list[Case], list[set[str]]]:
    """The scans as they are, each by a calibration on other persons, and what is said of each (`said_of`)."""
    cases, said = [], []
    for number, (row, other) in enumerate(zip(rows, leave_one_person_out(rows), strict=True)):
        for s, dice in row.dice.items():
            predicted = other.dice(s, row.found[s])
            assert predicted is not None
            cases.append(Case(PLAIN, number, predicted, row.found[s].agreement, dice))
        by = _others(rows, row.person)
        said.append(said_of(judge(row.found, row.statistics, by)))
    return cases, said


def said_of(verdict: Verdict) -> set[str]:
    """ "flagged", "unlike", both or neither."""
    return ({"flagged"} if verdict.review else set()) | ({"unlike"} if verdict.unlike else set())


def _others(rows: Sequence[HeldOut], person: str) -> Calibration:
    return calibrate([r for r in rows if r.person != person], PASSES.value, SEED, "scan")


def spoiled_cases(
    members: Members, store: Store, subject: str, calibration: Calibration, number: int, folder: Path
) -> tuple[list[Case], dict[str, set[str]]]:
    """A scan spoiled in every way and segmented from its file on.

    Returns:
      Its cases, and kind -> what is said of it (`said_of`), or "refused" by preprocessing.
    """
    scan = original_scan(store, subject)
    assert scan.label is not None
    saved = members.saved[0]
    predictors = [load_predictor(s) for s in members.saved]
    trust = Trust(predictors, make_passes(PASSES.value, SEED, may_mirror(members.spec)), calibration)
    settings = PrepareSettings.from_dict(saved.description["prepare"])
    cases, became = [], {}
    for kind, spoil in SPOILS.items():
        path = folder / f"{kind.replace(' ', '-').replace('%', '')}.nii.gz"
        image = spoil(np.asarray(scan.image, np.float32), np.random.default_rng((SEED, number)))
        nib.save(nib.Nifti1Image(image, scan.affine), path)
        try:
            made = predict_scan(
                ScanFiles(kind, path),
                members.spec,
                members.box,
                settings,
                predictors[0],
                smallest=saved.description.get("smallest_pieces"),
                trust=trust,
            )
        except ExclusionError:
            became[kind] = {"refused"}
            continue
        assert made.verdict is not None
        became[kind] = said_of(made.verdict)
        for i, s in enumerate(members.spec.structures):
            if s not in store.marked(subject):
                continue
            truth = mask_of(scan.label, store.spec.structures.index(s), store.spec.exclusive)
            dice = score(_mask_of_value(made.label, members, i), truth, (1.0, 1.0, 1.0)).dice
            v = made.verdict.structures[s]
            assert v.predicted is not None
            cases.append(Case(kind, number, v.predicted, v.agreement, dice))
    return cases, became


def _mask_of_value(label: NDArray[np.integer], members: Members, place: int) -> NDArray[np.bool_]:
    spec = members.spec
    return np.asarray(label == own_values(spec.structures, spec.label_values, spec.exclusive)[place])


def figures_of(cases: Sequence[Case]) -> dict[str, Any]:
    """Rank correlation and risk-coverage areas of the two signs, over structures of scans."""
    dice = [c.dice for c in cases]
    risk = [1 - d for d in dice]
    signs = {"predicted": [c.predicted for c in cases], "pairwise": [c.agreement for c in cases]}
    return {
        "rank_correlation": {k: measure.rank_correlation(v, dice) for k, v in signs.items()},
        "aurc": {k: measure.area(v, risk) for k, v in signs.items()}
        | {"best": measure.best_area(risk), "chance": float(np.mean(risk))},
        "error": {k: float(np.mean(np.abs(np.subtract(v, dice)))) for k, v in signs.items()},
    }


def table(cases: Sequence[Case], became: Mapping[str, Sequence[set[str]]]) -> list[dict[str, Any]]:
    """A row a kind of scan."""
    rows = []
    for kind, ends in became.items():
        ours = [c for c in cases if c.kind == kind]
        row: dict[str, Any] = {"scans": kind, "n": len(ends)}
        row |= {end: sum(end in e for e in ends) for end in ("flagged", "unlike", "refused")}
        row["neither"] = sum(not e for e in ends)
        if ours:
            row["true Dice"] = float(np.mean([c.dice for c in ours]))
            row["predicted Dice"] = float(np.mean([c.predicted for c in ours]))
            row["pairwise Dice"] = float(np.mean([c.agreement for c in ours]))
        rows.append(row)
    return rows


def draw(cases: Sequence[Case], path: Path) -> None:
    """Predicted against true Dice, pairwise against true Dice, and the risk-coverage curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.9), layout="constrained")
    one, two, three = figure.subplots(1, 3)
    kinds = list(dict.fromkeys(c.kind for c in cases))
    for axes, name, sign in ((one, "predicted Dice", "predicted"), (two, "plain pairwise Dice", "agreement")):
        for number, kind in enumerate(kinds):
            ours = [c for c in cases if c.kind == kind]
            x, y = [getattr(c, sign) for c in ours], [c.dice for c in ours]
            axes.plot(x, y, "o", markersize=3, alpha=0.7, color=f"C{number}", label=kind)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=name, ylabel="true Dice")
    one.legend(fontsize=7)
    risk = np.array([1 - c.dice for c in cases])
    share = np.arange(1, len(cases) + 1) / len(cases)
    for name, sure in (
        ("predicted Dice", [c.predicted for c in cases]),
        ("plain pairwise Dice", [c.agreement for c in cases]),
        ("the true Dice", [c.dice for c in cases]),
    ):
        three.plot(share, measure.risk_coverage(sure, risk), label=f"{name} ({measure.area(sure, risk):.3f})")
    three.axhline(risk.mean(), color="0.6", linestyle=":", label=f"chance ({risk.mean():.3f})")
    three.set(xlabel="share of structures kept, the most trusted first", ylabel="mean 1 - Dice of what is kept")
    three.set(xlim=(0, 1), ylim=(0, None))
    three.legend(fontsize=7, title="by (area)", title_fontsize=7)
    save(figure, path)


def cost(members: Members) -> dict[str, Any]:
    """Seconds of the passes against one pass, of a box of the network's own size."""
    assert members.box is not None
    predictor = load_predictor(members.saved[0])
    passes = make_passes(PASSES.value, SEED, may_mirror(members.spec))
    patch = np.random.default_rng(0).standard_normal((1, *members.box.size), np.float32)
    trust = Trust([predictor], passes)
    times = alternate(
        {"one": lambda: predictor(patch), "passes": lambda: trust.ask(lambda p: p(patch)[0], members.spec)}, 5
    )
    return {k: summary(v) for k, v in times.items()} | {"ratio": ratio(times["passes"], times["one"])}


def main() -> None:
    """Run it, print the table, write the JSON and the figure."""
    if not store_flags.STORES.value:
        raise InputError("--stores is missing: name the folders of prepared data sets.")
    started, folder = environment(), places.run_folder(RUN.value)
    members = members_of([load_saved(folder)], [folder])
    stores = [open_any_store(Path(s)) for s in store_flags.STORES.value]
    chosen = make_passes(PASSES.value, SEED, may_mirror(members.spec))
    ran: list[tuple[Store, Passing]] = []
    for store in stores:
        if not isinstance(store, Store):
            raise InputError(f"{store.where} is of slices, and this spoils volumes: name another.")
        ran += [(store, r) for r in pass_store(members, store, chosen, space="scan")]
    taken = cost(members) if members.box else None
    rows = [r.row for _, r in ran]
    cases, said = held_out_cases(rows)
    became: dict[str, list[set[str]]] = {PLAIN: said}
    start = time.perf_counter()
    for place in np.unique(np.linspace(0, len(ran) - 1, min(SPOILED.value, len(ran))).astype(int)):
        store, passed = ran[place]
        with tempfile.TemporaryDirectory() as beside:
            by = _others(rows, passed.row.person)
            more, ends = spoiled_cases(members, store, passed.subject, by, int(place), Path(beside))
        cases += more
        for kind, end in ends.items():
            became.setdefault(kind, []).append(end)
        print(f"spoiled: {passed.subject} ({time.perf_counter() - start:.0f} s)", flush=True)
    found = {PLAIN: figures_of([c for c in cases if c.kind == PLAIN]), "with the spoiled ones": figures_of(cases)}
    rows_of_table = table(cases, became)
    result = {
        "environment": started,
        "model": RUN.value if RUN.value == "brain" else folder.name,
        "passes": PASSES.value,
        "cases": rows_of_table,
        "signs": found,
        "held_out": measured([r for _, r in ran]),
        "cost": taken,
        "points": [dataclasses.astuple(c) for c in cases],
    }
    for row in rows_of_table:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    for name, of in found.items():
        print(name, {k: {a: b if b is None else round(b, 3) for a, b in v.items()} for k, v in of.items()})
    path = write_result("trust", result, common_flags.OUT.value)
    png = path.with_suffix(".png") if common_flags.OUT.value else RESULTS / machine_name() / "trust.png"
    draw(cases, png)
    print(f"written: {png}")


if __name__ == "__main__":
    common_flags.run(main)
