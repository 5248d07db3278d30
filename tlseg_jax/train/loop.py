"""The training loop: no host sync a step, losses read a few steps late, NaN named, resumable exactly."""

import contextlib

import jax

from tlseg_jax.runtime import preemption, processes, signals
from tlseg_jax.runtime.errors import Preempted
from tlseg_jax.train.readings import Call, Readings
from tlseg_jax.train.trainer import Fit, Trainer


def fit(trainer: Trainer) -> Fit:
    """Train until `settings.steps`, or until validation stops improving; goes on from a checkpoint.

    Of several processes each makes this call, with its own rows of the batches, and the chief writes and draws.

    Steps in one dispatch end where the host has to look at the state (`LoopSettings.next_look`), so that the results
    are those of single steps.

    Raises:
      InputError: the loss became NaN or infinite: names the step and the subjects of its batch.
      Preempted: a signal asked for it (`signals`); what was done is saved.
    """
    settings, hooks, step = trainer.settings, trainer.hooks, trainer.step
    watch, trace = hooks.watch, hooks.trace
    with signals.waiting(), hooks.save() as checkpoints, trace or contextlib.nullcontext():
        state = checkpoints.restore(trainer.state, trainer.batches)
        start = count = int(state.step)
        readings, compiled = Readings(trainer, start), set[tuple[int, int]]()
        clock, stop = readings.clock, preemption.stop()
        stopped = "patience" if settings.out_of_patience(readings.validation) else "steps"
        try:
            watches = watch is not None and settings.watch_every > 0
            if watch and watches and start < settings.steps:
                jax.block_until_ready(watch.draw(state))  # compiled here, so that its time is in no epoch
            while count < settings.steps and stopped != "patience":
                steps = step.length(settings.next_look(count, watches) - count, count)
                batches = [next(trainer.batches) for _ in range(steps)]
                seen = [sorted({trainer.subjects[i] for i in b["index"]}) for b in batches]
                samples = len(batches[0]["index"]) * processes.count()
                if trace:
                    trace.before(state)
                program = (steps, step.stage(count))
                new = program not in compiled
                if new:  # its compiler is waited for, so that it is in no rate
                    readings.read_all()
                    clock.stop(count)
                state, metrics = trainer.step(state, batches, count)
                count += steps
                test = watch.draw(state) if watch and settings.watches(count) else None
                readings.add(Call(count, seen, metrics, samples, test))
                if trace:
                    trace.after(steps, state)
                if new:
                    readings.read_all()
                    compiled.add(program)
                    clock.go(count)
                readings.keep_up()
                stopping = stop.after_call()
                if not settings.saves(count) and not stopping:
                    continue
                readings.read_all()  # nothing is saved after a NaN
                clock.stop(count)
                if count in settings.epoch_ends:
                    readings.end_epoch(count, state)
                score: float | None = None
                if hooks.validate is not None and settings.validates(count):
                    score = hooks.validate(state)
                    readings.add_score(count, score)
                    if settings.out_of_patience(readings.validation):
                        stopped = "patience"
                readings.flush()
                checkpoints.save(state, trainer.batches, trainer.description, score)
                if stopping:
                    break
                clock.go(count)
            if stop.at_end():
                checkpoints.close()
                raise Preempted(
                    f"Stopped by {signals.asked_by()} after step {count} of {settings.steps}, which is saved in "
                    f"{trainer.folder}: run the same command again to go on from there.",
                    everywhere=True,
                )
        finally:
            stop.close()
            readings.close()
        return Fit(
            state=state,
            resumed_at=start,
            losses=readings.losses,
            validation=readings.validation,
            stopped=stopped,
            test_losses=readings.history.curves["test_loss"],
            epochs=readings.epochs.rows,
        )
