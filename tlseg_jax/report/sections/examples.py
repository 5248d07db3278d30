"""Section: slices beside the truth (Figs. 11 to 13 of Wang & Tang 2020), predicted anew by the models of the cells."""

from tlseg_jax.checkpoints.checkpoint import SavedModel, load_model
from tlseg_jax.evaluate.results import result_name
from tlseg_jax.figures.slice_examples import draw_examples
from tlseg_jax.preprocess.store.any_store import open_any_store
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.assess import example_slice
from tlseg_jax.studies.results_table import Results

EXAMPLES = 3
"""Volumes to draw a slice of."""

TITLE = "Examples"


def examples(results: Results, study: StudyInfo) -> Section | None:
    """The slices that show most of the structure in some test volumes, with the probability by each model.

    The models are those of the largest n and its lowest seed. Where one or the data set is gone, a sentence says so.
    """
    v = View(results, study)
    target = results.where(role="target")
    if not target:
        return None
    most = target.numbers[-1]
    seed = target.where(n=most).seeds[0]
    rows = target.where(n=most, seed=seed).rows
    subjects = list(dict.fromkeys(r.subject for r in rows))[:EXAMPLES]
    name = rows[0].test_set
    try:
        store = open_any_store(study.stores.get(name, ""))
        if not isinstance(store, SliceStore):
            raise InputError(f"{store.where} holds no slices any more.")
        structure = next((s for s in store.spec.structures if result_name(store.spec, s) == name), store.spec.target)
        models: dict[str, SavedModel] = {
            r.method: load_model(study.cell(r.cell)) for r in rows if r.subject == subjects[0]
        }
        cases = [example_slice(store, s, structure, s, models) for s in subjects]
    except InputError as e:
        return Section(TITLE, (f"Not shown: {e}",))
    draw_examples(cases, v.png("examples"), heading=f"{name}, n = {most}, seed {seed}", mark=v.mark)
    caption = (
        f"The slice that shows most of the structure in {len(subjects)} test volume(s) of {name}: the image, the "
        f"truth and the probability by each model (n = {most}, seed {seed}). Examples are illustrations, not results."
    )
    return Section(TITLE, (), (v.figure("examples", caption, "slices with truth and probability by model"),))
