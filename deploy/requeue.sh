# shellcheck shell=bash
# Sourced by the SLURM scripts here: runs a job step, and puts the job back into the queue where it was pre-empted.
#
# --signal=TERM@120 in those scripts has SLURM send SIGTERM to the step two minutes before the time limit; a
# pre-emption sends it as well. The command then saves a checkpoint and ends with exit code 75. Any other code is
# final: 0 is done, 2 is a fault in what was given, which another try would meet again.

run_or_requeue() {
  local code=0 job="${SLURM_JOB_ID}"
  # A task of an array by the array's number and its own: the last task's job number is the whole array's.
  if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
    job="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
  fi
  trap : TERM # this shell waits for the step, whatever it is sent itself
  srun "$@" || code=$?
  if ((code == 75)); then
    echo "pre-empted: ${job} goes back into the queue"
    scontrol requeue "${job}" || echo "SLURM has done so, or does not allow it (--requeue)" >&2
  fi
  return "${code}"
}
