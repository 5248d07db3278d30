#!/usr/bin/env bash
# Fine-tune for several numbers of labelled scans and several seeds: a run a task of a job array, a GPU a task.
#
#   sbatch --export=ALL,STORE=/store,WORKDIR=/runs deploy/slurm_array.sh
#   sbatch --export=ALL,STORE=/store,WORKDIR=/runs,NS="1 2 4",SEEDS="0 1" --array=0-5 deploy/slurm_array.sh
#
# The pre-trained model is to be in WORKDIR before (deploy/slurm_multihost.sh, or experiments.pretrain): the tasks
# would else be in one another's way. More flags of the command go behind the script's name.
#SBATCH --job-name=tlseg-finetune
#SBATCH --array=0-11
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
: "${STORE:?folder or address of the prepared data sets}" "${WORKDIR:?folder or address of the runs}"
# shellcheck source=deploy/requeue.sh
source "${SLURM_SUBMIT_DIR}/deploy/requeue.sh"

read -ra ns <<<"${NS:-2 4 8 16}"
read -ra seeds <<<"${SEEDS:-0 1 2}"
runs=$((${#ns[@]} * ${#seeds[@]}))
if ((SLURM_ARRAY_TASK_ID >= runs)); then
  echo "task ${SLURM_ARRAY_TASK_ID} has nothing to do: ${#ns[@]} numbers by ${#seeds[@]} seeds are tasks 0 to $((runs - 1))"
  exit 0
fi
n="${ns[SLURM_ARRAY_TASK_ID / ${#seeds[@]}]}"
seed="${seeds[SLURM_ARRAY_TASK_ID % ${#seeds[@]}]}"

run_or_requeue --ntasks=1 python -m experiments.finetune \
  --pretask="${PRETASK:-hdt_v}" --task="${TASK:-hdt_c}" --n="${n}" --seed="${seed}" \
  --store="${STORE}" --workdir="${WORKDIR}" "$@"
