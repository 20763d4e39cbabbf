#!/bin/bash
# Trains on hosts that are reached by ssh, and goes on until finished.
#
# Command, from the repository, at the same path on every host, with --workdir
# on storage that they share (NFS, Lustre, a mounted bucket):
#   HOSTS="gpu1 gpu2 gpu3 gpu4" experiments/launch/hosts.sh \
#     --config=experiments/triplane.py --config.data.path=data/me \
#     --workdir=runs/me/triplane --config.data.batch_size=32
# One process a host, with all its GPUs. What follows hosts.sh is given to
# pir_jax.train. PORT (8476) of the first host must be reachable from the others;
# PYTHON (python) is the interpreter on all of them.
# Ctrl-C, or SIGTERM to this script, saves on all hosts and ends.

set -u

: "${HOSTS:?name the hosts, the first one is the coordinator: HOSTS=\"a b c\"}"
read -r -a hosts <<<"$HOSTS"
port=${PORT:-8476}
python=${PYTHON:-python}
read -r -a ssh <<<"${SSH:-ssh -o BatchMode=yes -o ServerAliveInterval=15}"

workdir=
for argument in "$@"; do
  case $argument in --workdir=*) workdir=${argument#--workdir=} ;; esac
done
if [ -z "$workdir" ]; then
  echo "hosts.sh: say --workdir=DIRECTORY, on storage all hosts share." >&2
  exit 1
fi

# The words are quoted once more: ssh gives them to a shell.
words=$(printf ' %q' "$@")
here=$(printf '%q' "$PWD")
processes=()
stopping=

# shellcheck disable=SC2329  # the trap calls it
stop() {
  stopping=1
  # Closing ssh would not reach a process without a terminal.
  for i in "${!hosts[@]}"; do
    "${ssh[@]}" "${hosts[$i]}" "kill -TERM \$(cat $here/.pir_jax_$port.$i.pid)" &
  done
}
trap stop INT TERM

for attempt in $(seq 50); do
  processes=()
  for i in "${!hosts[@]}"; do
    # setsid: Ctrl-C here must not end ssh before the run has saved.
    setsid "${ssh[@]}" "${hosts[$i]}" "cd $here && echo \$\$ >.pir_jax_$port.$i.pid &&
      exec $python -u -m pir_jax.train --coordinator=${hosts[0]}:$port \
      --num_processes=${#hosts[@]} --process_id=$i $words" &
    processes+=($!)
  done
  worst=0
  for process in "${processes[@]}"; do
    wait "$process"
    code=$?
    # A signal ends `wait`, not the process.
    while kill -0 "$process" 2>/dev/null; do
      wait "$process"
      code=$?
    done
    # 1 is a mistake that its last line names; it outweighs what followed.
    if [ "$code" -eq 1 ] || [ "$worst" -eq 0 ]; then worst=$code; fi
  done
  # Exit code 0 is "finished" or "saved because the machine was wanted".
  [ -e "$workdir/finished" ] && exit 0
  [ -n "$stopping" ] && exit "$worst"
  [ "$worst" -eq 1 ] && exit 1
  echo "hosts.sh: not finished (code $worst), attempt $attempt of 50 is over."
  sleep "${PAUSE:-10}"
done
exit "$worst"
