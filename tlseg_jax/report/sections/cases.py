"""Section: one scan by method and n (Fig. 4); and scans to scroll through."""

from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.figures.method_style import MANY
from tlseg_jax.report.figures.case_scans import CaseScan, check_alike, load_prediction, load_scan
from tlseg_jax.report.figures.choose_cases import ChosenCase, choose_cases, grid_subject
from tlseg_jax.report.figures.method_grid import draw_method_grid
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.page.viewer import Viewer, ViewerCase, make_viewer
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import ResultRow, Results

GRID = "One scan by method and n"


def cases(results: Results, study: StudyInfo) -> Section:
    """One slice of one test scan, as each method and n has it, in the colours of the paper's Fig. 4.

    Where scan or masks are gone, a sentence says so in place of the picture.
    """
    v, row = View(results, study), grid_subject(results)
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
        masks,
        scan.image,
        scan.reference,
        scan.affine,
        v.png("method_grid"),
        subject=row.subject,
        voxel_ml=scan.voxel_ml,
        methods=v.order,
        heading=f"{row.subject} of {row.test_set}",
        mark=v.mark,
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


def make_viewers(results: Results, study: StudyInfo, count: int) -> tuple[tuple[Viewer, ...], tuple[str, ...]]:
    """Viewers of at most `count` scans, and a sentence for each that cannot be shown (alike ones once)."""
    viewers, notes = [], []
    for case in choose_cases(results, count):
        try:
            scan = load_scan(study, case.row.test_set, case.row.subject)
            predicted = _mask(study, case.row, scan)
        except InputError as e:
            notes.append(str(e))
            continue
        viewers.append(make_viewer(_viewer_case(case, scan, predicted)))
    return tuple(viewers), tuple(dict.fromkeys(notes))


def _mask(study: StudyInfo, row: ResultRow, scan: CaseScan) -> Mask:
    predicted = load_prediction(study, row)
    check_alike(scan, predicted, row)
    return predicted


def _viewer_case(case: ChosenCase, scan: CaseScan, predicted: Mask) -> ViewerCase:
    r = case.row
    where = "unseen data" if r.role == "unseen" else "the target"
    title = f"{case.title[:1].upper()}{case.title[1:]} of {where} {r.test_set}: {r.subject}"
    caption = (
        f"{r.method}, n = {r.n}, seed {r.seed}: IoU {r.iou:.3f}, {r.predicted_ml:.1f} ml predicted, "
        f"{r.reference_ml:.1f} ml reference."
    )
    if case.runs > 1:
        caption += f" The mean over {case.runs} runs is {case.mean:.3f}; this is the run nearest to it."
    return ViewerCase(
        title, caption, r.subject, scan.image, scan.reference, predicted, scan.affine, scan.stack, scan.numbers
    )
