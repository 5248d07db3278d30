"""Section: one scan by method and n (Fig. 4); and scans to scroll through."""

from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.figures.style import MANY
from tlseg_jax.report.figures.case_scans import CaseScan, check_alike, load_prediction, load_scan
from tlseg_jax.report.figures.method_grid import draw_method_grid
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.page.viewer import Layer, ViewerCase, compared, make_viewer
from tlseg_jax.report.page.viewer_box import HOW
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import ChosenCase, choose_cases, grid_subject
from tlseg_jax.report.view import View
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import ResultRow, Results

GRID = "One scan by method and n"


def cases(results: Results, study: StudyInfo) -> Section:
    """One slice of one test scan, as each method and n has it, in the colours of the paper's Fig. 4.

    Where scan or masks are gone, a sentence says so in place of the picture.
    """
    v = View(results, study)
    row = grid_subject(results, v.best)
    if row is None:
        return Section(GRID, ("Not shown: nothing was scored on the target yet.",))
    if len(v.order) > MANY:
        return Section(GRID, (f"Not shown: {len(v.order)} methods are more than one figure can hold.",))
    own = [r for r in results.where(role="target", test_set=row.test_set) if r.subject == row.subject]
    masks: dict[tuple[str, int], Mask] = {}
    faults = []
    try:
        scan = load_scan(study, row.test_set, row.subject)
    except InputError as e:
        return Section(GRID, (f"Not shown: {e}",))
    for method, n in dict.fromkeys((r.method, r.n) for r in own):
        first = min((r for r in own if (r.method, r.n) == (method, n)), key=lambda r: r.seed)
        try:
            masks[method, n] = _mask(study, first, scan)
        except InputError as e:
            faults.append(str(e))
    if not masks:
        return Section(GRID, (f"Not shown: {faults[0]}",))
    draw_method_grid(
        masks, scan, v.png("method_grid"), methods=v.order, heading=f"{row.subject} of {row.test_set}", mark=v.mark
    )
    caption = (
        f"{row.subject} of {row.test_set}, the median scan of {row.method} at n = {row.n}; of each method and n "
        "the run with the lowest seed that was tested on it. Red is true positive, green false negative, blue false "
        "positive. One scan is an illustration, not a result."
    )
    if scan.stack:
        caption += " Its slices are no neighbours, so the height in mm has no meaning."
    notes = (f"{len(faults)} of the masks cannot be shown; the first: {faults[0]}",) if faults else ()
    return Section(GRID, notes, (v.figure("method_grid", caption, "One axial slice by method and n"),))


def scans(results: Results, study: StudyInfo, count: int) -> tuple[Section, tuple[str, ...]]:
    """Viewers of at most `count` scans, and a sentence for each that cannot be shown (alike ones once)."""
    viewers, notes, v = [], [], View(results, study)
    for case in choose_cases(v.of_main, v.best, count):
        try:
            viewers.append(make_viewer(_viewer_case(case, results, study)))
        except InputError as e:
            notes.append(str(e))
    lost = tuple(dict.fromkeys(notes))
    title = "Look at the scans" if viewers else "Scans that cannot be shown"
    whose = f"Of each data set the worst, the median and the best scan of {v.who}, as far as there is room."
    said = (*((whose, HOW) if viewers else ()), *(f"Not shown: {note}" for note in lost))
    return Section(title, said, viewers=tuple(viewers)), lost


def _mask(study: StudyInfo, row: ResultRow, scan: CaseScan) -> Mask:
    predicted = load_prediction(study, row)
    check_alike(scan, predicted, row)
    return predicted


def _viewer_case(case: ChosenCase, results: Results, study: StudyInfo) -> ViewerCase:
    """The scan with every structure that the run was scored on, the chosen one first."""
    r = case.row
    own = [o for o in results if (o.cell, o.role, o.data_set, o.subject) == (r.cell, r.role, r.data_set, r.subject)]
    layers, scan = [], load_scan(study, r.test_set, r.subject)
    for o in sorted(own, key=lambda o: o.test_set != r.test_set):
        truth = scan if o.test_set == r.test_set else load_scan(study, o.test_set, o.subject)
        layers.append(
            Layer(o.structure or o.test_set, _caption(case, o), compared(truth.reference, _mask(study, o, truth)))
        )
    where = "unseen data" if r.role == "unseen" else "the target"
    place = f"{r.data_set}, {r.structure}" if len(layers) > 1 else r.test_set
    title = f"{case.title[:1].upper()}{case.title[1:]} of {where} {place}: {r.subject}"
    return ViewerCase(title, r.subject, scan.image, scan.affine, tuple(layers), scan.stack, scan.numbers)


def _caption(case: ChosenCase, r: ResultRow) -> str:
    caption = (
        f"{r.method}, n = {r.n}, seed {r.seed}: IoU {r.iou:.3f}, {r.predicted_ml:.1f} ml predicted, "
        f"{r.reference_ml:.1f} ml reference."
    )
    if case.runs > 1 and r is case.row:
        caption += f" The mean over {case.runs} runs is {case.mean:.3f}; this is the run nearest to it."
    return caption
