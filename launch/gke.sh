#!/usr/bin/env bash
# Runs valle on TPU slices of a GKE cluster through xpk, which makes a JobSet with one pod per host.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/command.sh"

usage() {
  cat <<'END'
usage: launch/gke.sh --cluster CLUSTER --workload NAME --tpu-type TYPE --image IMAGE [options] [--dry-run] -- VALLE-ARGUMENTS

  --cluster CLUSTER     made with `xpk cluster create`
  --workload NAME       of the job
  --tpu-type TYPE       such as v5litepod-256
  --image IMAGE         built from launch/Dockerfile and pushed where the cluster reads it
  --num-slices N        default 1; data parallelism spans the slices
  --restarts N          how often the job may start again after a preemption; default 100
  --project PROJECT, --zone ZONE   default: gcloud's
  --dry-run             print the command instead

Example:
  docker build --file launch/Dockerfile --build-arg EXTRAS=tpu,text,storage --tag IMAGE . && docker push IMAGE
  launch/gke.sh --cluster c --workload valle-ar --tpu-type v5litepod-256 --num-slices 2 --image IMAGE \
      -- train --preset base --stage ar --data gs://bucket/libri --workdir gs://bucket/ar --mesh data=128,fsdp=4 --steps 800000
END
}

options="cluster workload tpu_type image num_slices restarts project zone"
cluster= workload= tpu_type= image= num_slices=1 restarts=100 project= zone=
parse_options "$@"
require cluster workload tpu_type image

printf -v arguments '%q ' "${verb[@]}"
# Pods find each other by what GKE sets (TPU_WORKER_HOSTNAMES, MEGASCALE_*). The grace period is the time for a checkpoint.
run xpk workload create --cluster "$cluster" --workload "$workload" --tpu-type "$tpu_type" --num-slices "$num_slices" \
  --docker-image "$image" --max-restarts "$restarts" --termination-grace-period-seconds 300 \
  ${project:+--project "$project"} ${zone:+--zone "$zone"} --command "valle ${arguments% }"
