"""The prepared data sets that a study needs: found or made, and cut into folds."""

import dataclasses

from tlseg_jax.datasets.factors import is_factor_name
from tlseg_jax.preprocess.folds import take_fold
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.studies.assess import scored_names
from tlseg_jax.studies.cells import Cell, PretrainCell, pretraining_of
from tlseg_jax.studies.results_table import Role
from tlseg_jax.studies.study import Study
from tlseg_jax.studies.workplace import Workplace, lacks_unseen, named_spec, open_store
from tlseg_jax.train.seen import refuse_seen, seen_of

FEW = 2
"""Test heads of a pre-task in a factor study."""


@dataclasses.dataclass(frozen=True, eq=False)
class StudyData:
    """All data sets of a study.

    Attributes:
      target: that of the task.
      unseen: test sets of other sources.
      pretasks: name -> data set.
      folds: 0 for the prepared split.
      cut: folds that were taken already.
    """

    target: AnyStore
    unseen: tuple[AnyStore, ...]
    pretasks: dict[str, AnyStore]
    folds: int
    cut: dict[tuple[str, int], AnyStore] = dataclasses.field(default_factory=dict)

    def of_cell(self, cell: Cell) -> AnyStore:
        """The target's data with this cell's persons held out."""
        return self._fold(self.target, cell.fold)

    def of_pretraining(self, cell: PretrainCell) -> AnyStore:
        """The pre-task's data; with folds its test persons are those of the fold."""
        store = self.pretasks[cell.pretask]
        shared = store.spec.split_group == self.target.spec.split_group
        return self._fold(store, cell.fold if shared else None)

    def _fold(self, store: AnyStore, fold: int | None) -> AnyStore:
        if fold is None:
            return store
        key = (str(store.folder), fold)
        if key not in self.cut:
            self.cut[key] = take_fold(store, fold, self.folds, None if store is self.target else self.target)
        return self.cut[key]

    def tests_of_cell(self, cell: Cell) -> tuple[AnyStore, ...]:
        """What a cell is scored on: the target's test set, unseen data and, of slices, the pre-task's test set."""
        tests = [self.of_cell(cell), *self.unseen]
        first = pretraining_of(cell)
        if isinstance(self.target, SliceStore) and first:
            source = self.of_pretraining(first)
            if source.subjects("test") and source.spec.target in self.target.spec.structures:  # type: ignore[union-attr]
                tests.append(source)  # what was forgotten
        return tuple(tests)

    def roles_of_cell(self, cell: Cell) -> dict[str, Role]:
        """Test set -> what it is to a cell's model."""
        target, *rest = self.tests_of_cell(cell)
        roles: dict[str, Role] = dict.fromkeys(scored_names(target), "target")
        for store in rest:
            roles |= dict.fromkeys(scored_names(store), "unseen" if store in self.unseen else "pretask")
        return roles


def open_data(place: Workplace, study: Study) -> StudyData:
    """Open all data sets of a study; those of the built-in cohort are made where they are missing.

    An unseen data set that the user's store lacks is left out, and said so.

    Raises:
      InputError: the target or a pre-task is missing, has nothing to train or test on, or is of another kind; or an
        unseen data set holds scans that train.
    """
    target = open_store(place, named_spec(place, study.task))
    if not study.folds and not target.subjects("test"):
        raise InputError(
            f"{target.where} has no test subjects, so a study has nothing to score: prepare it with a "
            "`test_fraction` above 0, or give `folds`."
        )
    pretasks = {}
    for name in study.pretasks:
        # A designed data set is there to be trained on; a few heads show that it was learnt.
        few = dataclasses.replace(place, cohort_test=FEW) if is_factor_name(name) else place
        try:
            store = open_store(few, named_spec(place, name))
        except InputError as e:
            raise InputError(f"{e} Or leave out the methods that start from it (`methods`).") from None
        if store.spec.kind != target.spec.kind:
            raise InputError(
                f"{name} is a data set of {store.spec.kind} and {study.task} one of {target.spec.kind}: a network of "
                "one cannot start from the other's; choose a pretask of the same kind."
            )
        pretasks[name] = store
    unseen = []
    for name in study.unseen:
        if lacks_unseen(place, name):
            continue
        store = open_store(place, named_spec(place, name))
        if not store.subjects("test"):
            raise InputError(f"{store.where} has no test subjects: prepare it with `test_fraction=1`.")
        if rest := len(store.subjects("train")):
            log.info(
                f"{name}: {rest} of its {len(store.subjects(None))} scans are for training and are not scored; "
                "prepared with `test_fraction=1` all are."
            )
        unseen.append(store)
    # Before any cell trains; by folds everyone does, in one or another.
    trained = [(s, s.subjects(None if study.folds else "train")) for s in (target, *pretasks.values())]
    for store in unseen:
        where = ", ".join(s.spec.name for s, _ in trained)
        refuse_seen(store, seen_of(trained, {}), where, ", or leave it out of the study (`unseen`)")
    return StudyData(target, tuple(unseen), pretasks, study.folds)
