#!/bin/bash
# Trains on several GPU hosts of a Slurm cluster, and goes on until finished.
#
# Command, from the repository, on a file system that all hosts share:
#   sbatch --nodes=4 experiments/launch/slurm.sh \
#     --config=experiments/triplane.py --config.data.path=data/me \
#     --workdir=runs/me/triplane --config.data.batch_size=32
# What follows slurm.sh is passed to pir_jax.train. No --coordinator: with
# --distributed jax reads from srun's variables who the others are.

#SBATCH --job-name=pir_jax
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# One process a GPU: jax takes one device for each task of srun.
#SBATCH --ntasks-per-node=8
# Every task must see all GPUs of its host, else jax looks for number 3 of one.
#SBATCH --gpu-bind=none
# Two minutes before the time is up: train saves and ends with 0.
#SBATCH --signal=TERM@120
# A preempted or failed job keeps its number, its log and its place in line.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=pir_jax-%j.log

set -u

workdir=
for argument in "$@"; do
  case $argument in --workdir=*) workdir=${argument#--workdir=} ;; esac
done
if [ -z "$workdir" ]; then
  echo "slurm.sh: say --workdir=DIRECTORY, on a file system all hosts share." >&2
  exit 1
fi

# Proxies are not for the hosts of a cluster among themselves.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY

# --kill-on-bad-exit: the others cannot go on without one that died, and need
# not find that out by its silence.
srun --kill-on-bad-exit=1 python -u -m pir_jax.train --distributed "$@"
code=$?

# Exit code 0 is "finished" or "saved because the machine was wanted".
[ -e "$workdir/finished" ] && exit 0
# 1 is a mistake that the last line of the log names: starting again is no help.
[ "$code" -eq 1 ] && exit 1
if [ "${SLURM_RESTART_COUNT:-0}" -ge 50 ]; then
  echo "slurm.sh: started 50 times and not finished; code $code." >&2
  exit "$code"
fi
scontrol requeue "$SLURM_JOB_ID"
