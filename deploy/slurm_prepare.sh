#!/usr/bin/env bash
# Prepare thousands of scans in a job array, a shard a task; the last task that ends writes the manifest.
#
#   sbatch --array=0-15 --export=ALL,DATASET=hdt_v,SOURCE=/scans,STORE=/store deploy/slurm_prepare.sh
#
# Start the array at 0. More flags of the command go behind the script's name.
#SBATCH --job-name=tlseg-prepare
#SBATCH --array=0-7
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
: "${DATASET:?name of the data set, or a TOML file}" "${SOURCE:?folder of the scans}" "${STORE:?folder of the store}"
# shellcheck source=deploy/requeue.sh
source "${SLURM_SUBMIT_DIR}/deploy/requeue.sh"

# By the highest number and not by the count: of an array that is submitted again for some tasks, such as
# --array=3,7, only --export=...,SHARDS=16 knows how many there were.
shards="${SHARDS:-$((SLURM_ARRAY_TASK_MAX + 1))}"

run_or_requeue --ntasks=1 python -m experiments.prepare \
  --dataset="${DATASET}" --source="${SOURCE}" --store="${STORE}" \
  --shard="${SLURM_ARRAY_TASK_ID}/${shards}" --workers="${SLURM_CPUS_PER_TASK:-4}" "$@"
