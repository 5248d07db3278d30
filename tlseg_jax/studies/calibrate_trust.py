"""Calibrates how far a model's predictions are to be believed, on prepared scans that it has never seen."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import Tiles
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.evaluate.predict import statistics_of
from tlseg_jax.evaluate.readers import Reader, ScoreSpace, reader_of
from tlseg_jax.evaluate.results import common_structures
from tlseg_jax.evaluate.specks import without_specks
from tlseg_jax.evaluate.trust import measure
from tlseg_jax.evaluate.trust.calibration import Calibration, HeldOut, calibrate, leave_one_person_out
from tlseg_jax.evaluate.trust.passes import Pass, make_passes, may_mirror, run_passes
from tlseg_jax.evaluate.trust.temperature import calibration_error, fit_temperature, sampled, tempered
from tlseg_jax.evaluate.trust.trusting import check_alike, passed_structures
from tlseg_jax.evaluate.trust.unlike import LEAST
from tlseg_jax.evaluate.trust.verdict import judge
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.codes import UNMARKED, decide, mask_of
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.assess import ALLOW, place_in
from tlseg_jax.train.predictors import load_predictor
from tlseg_jax.train.seen import refuse_seen

SEED = 0
"""Of the passes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Passing:
    """A scan that went through the passes.

    Attributes:
      row: what trust is calibrated on.
      plain: probabilities of classes by the first network alone, of some voxels near the structures.
      mean: the same by the mean of all passes.
      truth: the true class of each.
    """

    subject: str
    row: HeldOut
    plain: NDArray[np.float32]
    mean: NDArray[np.float32]
    truth: NDArray[np.integer]


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
    """Networks that predict together, what they were trained on, and their folders, for messages.

    The box is their patch; None for tiles and slices.
    """

    saved: Sequence[SavedModel]
    spec: DatasetSpec
    box: Box | None
    where: str


def members_of(saved: Sequence[SavedModel], folders: Sequence[Path]) -> Members:
    """Models as one ensemble.

    Raises:
      InputError: see `check_alike`.
    """
    first = saved[0].description
    check_alike(saved, folders)
    spec = spec_from_dict(first["spec"], str(folders[0]))
    box = Box.from_dict(first["patch_box"]) if first["patch_box"] else None
    return Members(saved, spec, box, ", ".join(map(str, folders)))


def pass_store(
    members: Members,
    store: AnyStore,
    passes: Sequence[Pass],
    *,
    split: str = "test",
    space: ScoreSpace = "data",
    clean: bool = True,
    tiles: Tiles = "gaussian",
    allow_seen: bool = False,
    progress: bool = True,
) -> list[Passing]:
    """Run the passes on each scan of a split and compare the outcome with its label map.

    Raises:
      InputError: a model has seen a scan, the data and the models do not fit each other, or a scan cannot be read.
    """
    if split == "test" and not allow_seen:
        for saved in members.saved:
            refuse_seen(store, saved.description, members.where, ALLOW)
    spec = members.spec
    if spec.kind != store.spec.kind:
        raise InputError(f"{store.where} holds {store.spec.kind} and {members.where} is for {spec.kind}: name others.")
    subjects = store.subjects(split)
    if not subjects:
        raise InputError(f"The prepared data set {store.where} has no {split} subjects: choose another, or `split`.")
    structures = common_structures(store.spec, spec.structures, store.where)
    if set(structures) != set(spec.structures) and len(spec.structures) > 1:
        raise InputError(
            f"{store.where} shows {', '.join(structures)} of {spec.shown}: trust is calibrated on a data set that "
            "shows all of the model's structures."
        )
    smallest = (members.saved[0].description.get("smallest_pieces") or {}) if clean else {}
    predictors = [load_predictor(s) for s in members.saved]
    box = place_in(store, spec, members.where, members.box.to_dict() if members.box else None)
    out = []
    for subject in tqdm(subjects, desc=f"passes {store.spec.name}", unit="scan", disable=not progress, leave=None):

        def reader(predictor: Any) -> Reader:
            channels = members.saved[0].config.channels
            return reader_of(store, spec, box, predictor, channels=channels, tiles=tiles)

        try:
            at = reader(predictors[0])
            passed = run_passes(lambda p, s=subject: reader(p).probability(s), predictors, passes, spec)  # type: ignore[misc]
            reference = at.reference(subject, space)
            here = reference if space == "data" else at.reference(subject, "data")
        except InputError as e:
            raise InputError(f"Subject {subject} of {store.spec.name} could not be predicted: {e}") from None
        on_scan = without_specks(at.on_scan(subject, passed.mean), spec, smallest)
        codes = on_scan if space == "scan" else without_specks(decide(passed.mean, spec.exclusive), spec, smallest)
        known = reference != UNMARKED if store.spec.unmarked_value is not None else np.True_
        voxel_ml, ml, dice, truth = at.scan_voxel_ml(subject), {}, {}, {}
        for i, ours in enumerate(spec.structures):
            ml[ours] = int(np.count_nonzero(mask_of(on_scan, i, spec.exclusive))) * voxel_ml
            theirs = store.spec.structures[0] if len(spec.structures) == 1 else ours
            if theirs not in store.marked(subject):
                continue
            there = mask_of(reference, store.spec.structures.index(theirs), store.spec.exclusive) & known
            found = score(mask_of(codes, i, spec.exclusive) & known, there, at.voxel(subject, space))
            dice[ours] = found.dice
            own = store.label_ml(subject, theirs)
            truth[ours] = found.reference_ml if own is None else own
        statistics = _statistics(store, subject, spec, box)
        row = HeldOut(store.persons[subject], passed_structures(passed, spec, ml), dice, truth, statistics)
        (a, b), right = sampled([passed.first, passed.mean], _in_order(here, store.spec, spec), spec.exclusive)
        out.append(Passing(subject, row, a, b, right))
    return out


def _in_order(codes: NDArray[np.uint8], theirs: DatasetSpec, ours: DatasetSpec) -> NDArray[np.uint8]:
    """Codes of a data set's structures as those of the model's."""
    if len(ours.structures) == 1 or theirs.structures == ours.structures:
        return codes
    table = np.zeros(256, np.uint8)
    for code in range(256):
        if ours.exclusive:
            known = 0 < code <= len(theirs.structures) and theirs.structures[code - 1] in ours.structures
            table[code] = ours.structures.index(theirs.structures[code - 1]) + 1 if known else 0
        else:
            there = [s for i, s in enumerate(theirs.structures) if code >> i & 1 and s in ours.structures]
            table[code] = sum(1 << ours.structures.index(s) for s in there)
    if ours.exclusive:
        table[UNMARKED] = UNMARKED
    return table[codes]


def _statistics(store: AnyStore, subject: str, spec: DatasetSpec, box: Box | None) -> dict[str, float]:
    """Of slices none: a store holds some of a volume's slices, and `predict` sees all."""
    if not isinstance(store, Store):
        return {}
    return statistics_of(store.image(subject), spec, box, store.record(subject).get("details", {}))


def known_statistics(members: Members, store: AnyStore) -> list[dict[str, float]]:
    """Statistics of a store's training scans, where there are enough to know."""
    train = store.subjects("train") if isinstance(store, Store) else ()
    if len(train) < LEAST or store.manifest.get("parameters", {}).get("from_labels"):
        return []
    box = place_in(store, members.spec, members.where, members.box.to_dict() if members.box else None)
    return [_statistics(store, s, members.spec, box) for s in train]


def calibrate_trust(
    members: Members,
    stores: Sequence[AnyStore],
    *,
    passes: int,
    split: str = "test",
    space: ScoreSpace = "data",
    clean: bool = True,
    tiles: Tiles = "gaussian",
    allow_seen: bool = False,
    progress: bool = True,
) -> tuple[Calibration, list[Passing]]:
    """Calibrate trust in some models together, on prepared data sets with scans that they have not seen.

    Args:
      passes: of each network.
      space: which voxels Dice is to be predicted of: "scan", as `predict` writes them, or the prepared ones.
      clean: whether specks are dropped, as in `predict`.
      allow_seen: also of test scans that a model was trained on.

    Returns:
      The calibration, with figures of how it does on each person by the others, and the scans that it is from.

    Raises:
      InputError: see `pass_store` and `calibrate`.
    """
    chosen = make_passes(passes, SEED, may_mirror(members.spec))
    how: dict[str, Any] = {"split": split, "space": space, "clean": clean, "tiles": tiles}
    how |= {"allow_seen": allow_seen, "progress": progress}
    ran = [r for store in stores for r in pass_store(members, store, chosen, **how)]
    known = [s for store in stores for s in known_statistics(members, store)]
    rows = [r.row for r in ran]
    temperature = fit_temperature(np.concatenate([r.mean for r in ran]), np.concatenate([r.truth for r in ran]))
    found = calibrate(rows, passes, SEED, space, temperature, known)
    return dataclasses.replace(found, measured=measured(ran) | {"known": "training" if known else "held-out"}), ran


def measured(ran: Sequence[Passing]) -> dict[str, Any]:
    """Figures of trust on held-out scans, of each person by a calibration on the others.

    Returns:
      "dice"; "rank_correlation", "aurc" and "error" of the predicted Dice and of plain pairwise Dice, over all
      structures of all scans, within structures and over scans' means; "coverage" of the volumes' intervals;
      "flagged" and "unlike", shares of scans; "ece".
    """
    rows = [r.row for r in ran]
    others = leave_one_person_out(rows)
    cases = [
        (i, s, c.dice(s, r.found[s]), r.found[s].agreement, r.dice[s])
        for i, (r, c) in enumerate(zip(rows, others, strict=True))
        for s in r.dice
    ]
    cases = [c for c in cases if c[2] is not None]
    out: dict[str, Any] = {"dice": float(np.mean([c[4] for c in cases]))}
    signs = {"predicted": 2, "pairwise": 3}
    names = list(dict.fromkeys(c[1] for c in cases))
    scans = sorted({c[0] for c in cases})

    def column(some: Sequence[tuple[Any, ...]], at: int) -> NDArray[np.float64]:
        return np.array([c[at] for c in some], np.float64)

    def of_scans(at: int) -> NDArray[np.float64]:
        return np.array([column([c for c in cases if c[0] == i], at).mean() for i in scans])

    of_structures = {s: [c for c in cases if c[1] == s] for s in names}
    out["rank_correlation"] = {
        sign: {
            "all": measure.rank_correlation(column(cases, at), column(cases, 4)),
            "scans": measure.rank_correlation(of_scans(at), of_scans(4)),
            "structures": {s: measure.rank_correlation(column(c, at), column(c, 4)) for s, c in of_structures.items()},
        }
        for sign, at in signs.items()
    }
    risk, scan_risk = 1 - column(cases, 4), 1 - of_scans(4)
    out["aurc"] = {
        "all": {sign: measure.area(column(cases, at), risk) for sign, at in signs.items()}
        | {"best": measure.best_area(risk), "chance": float(risk.mean())},
        "scans": {sign: measure.area(of_scans(at), scan_risk) for sign, at in signs.items()}
        | {"best": measure.best_area(scan_risk), "chance": float(scan_risk.mean())},
    }
    out["error"] = {sign: float(np.abs(column(cases, at) - column(cases, 4)).mean()) for sign, at in signs.items()}
    inside, raw = [], []
    for r, c in zip(rows, others, strict=True):
        for s, truth in r.reference_ml.items():
            interval = c.interval(s, r.found[s])
            if interval is not None and truth > 0:
                inside.append(interval[0] <= truth <= interval[1])
                raw.append(r.found[s].low_ml <= truth <= r.found[s].high_ml)
    out["coverage"] = {"interval": float(np.mean(inside)), "passes": float(np.mean(raw))} if inside else {}
    out |= _flagged(rows)
    out["ece"] = _ece(ran)
    return out


def _flagged(rows: Sequence[HeldOut]) -> dict[str, float]:
    """Shares of held-out scans that a calibration on other persons flags; empty: too few are left to calibrate on."""
    verdicts = []
    for person in dict.fromkeys(r.person for r in rows):
        try:
            c = calibrate([r for r in rows if r.person != person], 0, 0, "data")
        except InputError:
            return {}
        verdicts += [judge(r.found, r.statistics, c) for r in rows if r.person == person]
    n = len(verdicts)
    return {"flagged": sum(v.review for v in verdicts) / n, "unlike": sum(bool(v.unlike) for v in verdicts) / n}


def _ece(ran: Sequence[Passing]) -> dict[str, float]:
    """Expected calibration error near the structures; each person's temperature is that of the others."""
    scaled = {}
    for person in dict.fromkeys(r.row.person for r in ran):
        of = [r for r in ran if r.row.person != person]
        scaled[person] = fit_temperature(np.concatenate([r.mean for r in of]), np.concatenate([r.truth for r in of]))
    truth = np.concatenate([r.truth for r in ran])
    after = np.concatenate([tempered(r.mean, scaled[r.row.person]) for r in ran])
    return {
        "plain": calibration_error(np.concatenate([r.plain for r in ran]), truth),
        "mean": calibration_error(np.concatenate([r.mean for r in ran]), truth),
        "tempered": calibration_error(after, truth),
    }
