#!/bin/bash
# One pod of a job that is started again until it is finished.
#
# Command, in the container: bash experiments/launch/pod.sh --config=... \
#   --workdir=... (all is given to pir_jax.train)
# Kubernetes takes exit code 0 for "finished". train also ends with 0 when it has
# saved because the machine was wanted: here that becomes 75, "start me again".

set -u

workdir=
for argument in "$@"; do
  case $argument in --workdir=*) workdir=${argument#--workdir=} ;; esac
done
if [ -z "$workdir" ]; then
  echo "pod.sh: say --workdir=DIRECTORY, on storage all hosts share." >&2
  exit 1
fi

"${PYTHON:-python}" -u -m pir_jax.train "$@" &
process=$!
# As the first process of a container a shell would keep the notice to itself.
trap 'kill -TERM "$process"' TERM
wait "$process"
code=$?
while kill -0 "$process" 2>/dev/null; do
  wait "$process"
  code=$?
done
if [ "$code" -eq 0 ]; then
  # Another host may be the one that writes it, through a mounted bucket.
  for _ in 1 2 3 4 5 6; do
    [ -e "$workdir/finished" ] && exit 0
    sleep "${PAUSE:-5}"
  done
  exit 75
fi
exit "$code"
