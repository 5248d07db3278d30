#!/usr/bin/env bash
# Pre-train one network on all GPUs of several nodes: a process a GPU, which find one another by SLURM's variables.
#
#   sbatch --nodes=4 --export=ALL,STORE=/store,WORKDIR=/runs deploy/slurm_multihost.sh --batch_size=16
#
# The batch is that of all nodes together, and is to divide by the number of GPUs. JAX gives each process of a node the
# GPU of its number there, so every process has to see them all: use no --gpus-per-task, and as many tasks as GPUs. More
# flags of the command go behind the script's name.
#SBATCH --job-name=tlseg-pretrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=8
#SBATCH --mem=128G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
: "${STORE:?folder or address of the prepared data sets}" "${WORKDIR:?folder or address of the runs}"
# shellcheck source=deploy/requeue.sh
source "${SLURM_SUBMIT_DIR}/deploy/requeue.sh"

# A process that is lost ends the others with the code for a requeue: none is left waiting for it.
run_or_requeue --kill-on-bad-exit=0 python -m experiments.pretrain \
  --pretask="${PRETASK:-hdt_v}" --store="${STORE}" --workdir="${WORKDIR}" --batch_size=8 "$@"
