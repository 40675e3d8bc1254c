#!/usr/bin/env bash
# Runs valle in N pods of an indexed Kubernetes job, each on a TPU host of its own, and waits until all are done.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/command.sh"

usage() {
  cat <<'EOF'
usage: launch/gke_array.sh --name NAME --array N --image IMAGE --accelerator A --topology T --claim CLAIM [options] [--dry-run] -- VALLE-ARGUMENTS

  --name NAME           of the job
  --array N             pods, which know their number by JOB_COMPLETION_INDEX (0 to N - 1)
  --image IMAGE         built from launch/Dockerfile and pushed where the cluster reads it
  --accelerator A       label of the node pool, such as tpu-v5-lite-podslice
  --topology T          of one host, such as 2x4
  --chips N             of that host; default 8
  --claim CLAIM         PersistentVolumeClaim that all pods may write, with data and results
  --mount PATH          where it is mounted, and the working directory; default /shared
  --restarts N          how often a pod may start again; default 100
  --parallel N          pods at a time; default: all
  --dry-run             print the manifest instead of applying it

Example:
  launch/gke_array.sh --name scale --array 12 --image IMAGE --accelerator tpu-v5-lite-podslice --topology 2x4 --claim results \
      -- ablate scale --data libri --out scale --only train
EOF
}

options="name array image accelerator topology chips claim mount restarts parallel"
name= array= image= accelerator= topology= chips=8 claim= mount=/shared restarts=100 parallel=
parse_options "$@"
require name array image accelerator topology claim

printf -v arguments '%q ' "${verb[@]}"
manifest="apiVersion: batch/v1
kind: Job
metadata:
  name: $name
spec:
  completionMode: Indexed
  completions: $array
  parallelism: ${parallel:-$array}
  backoffLimitPerIndex: $restarts
  podFailurePolicy:
    rules:
    - action: FailIndex # wrong arguments: the same again would fail again
      onExitCodes: {operator: In, values: [2]}
    - action: Ignore # preemption
      onPodConditions: [{type: DisruptionTarget}]
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 300
      nodeSelector:
        cloud.google.com/gke-tpu-accelerator: $accelerator
        cloud.google.com/gke-tpu-topology: $topology
      containers:
      - name: valle
        image: $image
        workingDir: $mount
        command: [bash, -c]
        args:
        - |
          exec valle ${arguments% }
        resources:
          limits: {google.com/tpu: $chips}
        volumeMounts: [{name: shared, mountPath: $mount}]
      volumes:
      - name: shared
        persistentVolumeClaim: {claimName: $claim}"

if [ -n "$dry_run" ]; then
  echo "$manifest"
else
  kubectl apply -f - <<<"$manifest"
  kubectl wait --for=condition=complete --timeout=-1s "job/$name" &
  complete=$!
  kubectl wait --for=condition=failed --timeout=-1s "job/$name" &
  failed=$!
  wait -n "$complete" "$failed"
  if kill "$complete" 2>/dev/null; then
    echo "job $name failed; see kubectl describe job/$name" >&2
    exit 1
  fi
  kill "$failed" 2>/dev/null || true
fi
