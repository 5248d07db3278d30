"""One model from a prepared data set: made ready, trained, or told only what that would take."""

from collections.abc import Sequence
from pathlib import Path

import jax

from tlseg_jax.checkpoints.checkpoint import Checkpoints
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime import allocator
from tlseg_jax.runtime.device_memory import format_bytes
from tlseg_jax.runtime.messages import log
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.dry_run import dry_run_report
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_record import labelled_scans
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.loop import fit
from tlseg_jax.train.memory import out_of_memory, shortage
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.run import Run, claim_run, prepare_run
from tlseg_jax.train.run_lines import flops_line
from tlseg_jax.train.seen import refuse_seen, seen_of
from tlseg_jax.train.synthetic import trained_on
from tlseg_jax.train.trace import Trace
from tlseg_jax.train.trainer import Fit, Hooks, LoopSettings, Trainer


def train_job(
    store: AnyStore,
    job: JobSettings,
    folder: Path,
    pretrained: Pretrained | None = None,
    *,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    programs: Programs | None = None,
    progress: bool = True,
) -> Fit:
    """Train one model into `folder`, or go on from what is there.

    In this order: the fresh network, the pre-trained parameters, the optimiser, the newest checkpoint.

    Args:
      folder: the run folder, which the caller holds (`lock_folder`).
      pretrained: what to start from; None trains end to end.
      execution: how it is run; no part of what a run is, so it may be resumed under another.
      programs: what other runs compiled, and where this one's are kept for them.

    Raises:
      InputError: the settings do not fit the data, the folder or the pre-trained model, a test
        subject was in the pre-training, the memory does not suffice, or the loss became NaN.
    """
    programs = programs or Programs()
    run = prepare_run(store, job, folder, pretrained, execution=execution, programs=programs)
    shapes = jax.eval_shape(lambda: run.state)  # the first step gives the state away
    if execution.dry_run:
        flops = flops_line(run.maker, shapes, run.data.batch_shapes())
        labels, steps = run.maker.labels, run.length.steps
        log.info(dry_run_report(job.network, run.state, labels, run.maker.batch, run.fits, flops, steps))
        return Fit(run.state, 0, [], [], "dry run")
    claim_run(run)
    try:
        return fit(_trainer(run, execution, programs, progress))
    except Exception as error:
        if not out_of_memory(error):
            raise
        maker, fits = run.maker, run.fits
        raise shortage(maker.planned, shapes, maker.batch, fits.prediction, fits.capacity, failed=True) from None
    finally:
        allocator.give_back()


def _trainer(run: Run, execution: Execution, programs: Programs, progress: bool) -> Trainer:
    """The training of a run, as `execution` has it done."""
    job, watch = run.job, run.data.watch()
    cache = run.cache()
    if cache:
        what = "features" if run.cached.levels else "data"
        log.info(f"on the device: {format_bytes(cache.nbytes)} of {what} of {len(run.fitted)} labelled scans.")
    most = execution.steps_per_call
    if watch and job.watch_every and job.watch_every < most:
        most = job.watch_every
        log.info(f"steps in a call: {most}, as the test loss is looked at every {most} (`watch_every`).")
    return Trainer(
        step=Dispatch(run.steps, most, cache, programs, parallel=run.maker.parallel),
        state=run.state,
        batches=run.batches,
        subjects=run.fitted,
        settings=LoopSettings(
            steps=run.length.steps,
            checkpoint_every=job.checkpoint_every,
            validate_every=job.validate_every if run.validating else 0,
            patience=job.patience if run.validating else 0,
            epoch_ends=run.length.epoch_ends,
            watch_every=job.watch_every,
        ),
        folder=run.folder,
        description=run.description,
        hooks=Hooks(
            save=lambda: Checkpoints(run.folder / "checkpoints", execution.keep),
            validate=run.data.validator(run.validating) if run.validating else None,
            watch=watch,
            trace=Trace(execution.profile) if execution.profile else None,
        ),
        progress=progress,
        title=f"train {run.folder.name}",
    )


def check_tests(store: AnyStore, job: JobSettings, pretrained: Pretrained | None, tests: Sequence[AnyStore]) -> None:
    """Before a run trains: refuse test sets of which it or its start will have seen scans or persons.

    Raises:
      InputError: there are such; they are named.
    """
    before = pretrained.saved.description if pretrained else {}
    fitted, validating = labelled_scans(store, job)
    description = seen_of(trained_on(store, (*fitted, *validating), job.recipe), before)
    for test in tests:
        refuse_seen(test, description, f"{f'{pretrained.run} or in ' if pretrained else ''}{store.where}")
