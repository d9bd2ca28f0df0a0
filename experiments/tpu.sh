#!/usr/bin/env bash
# Runs one command in the checkout of every worker of a TPU VM pod:
#
#   experiments/tpu.sh NAME ZONE python -m experiments.launch --distributed \
#     --config=configs/X.py --workdir=DIR
#
# NAME is the TPU VM, DIR a directory that all workers share (a mounted bucket
# or file store). The repository has to be installed on each of them, in
# ~/r1jax or in $R1JAX. The same command goes on with a run that was stopped.
set -euo pipefail

if [ $# -lt 3 ]; then
  echo "error: usage: experiments/tpu.sh NAME ZONE COMMAND..." >&2
  exit 2
fi
if ! command -v gcloud >/dev/null; then
  echo "error: gcloud is not installed; see cloud.google.com/sdk" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
# Quoted once more, for the shell on the other side.
printf -v line '%q ' "$@"
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="cd ${R1JAX:-r1jax} && exec $line"
