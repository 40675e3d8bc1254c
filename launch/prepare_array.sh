#!/usr/bin/env bash
# Prepares a dataset by many tasks: a SLURM array, or an indexed job of Kubernetes (GKE). The folder is one that all see.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/command.sh"

usage() {
  cat <<'END'
usage: launch/prepare_array.sh --on slurm|kubernetes --tasks N [options] [--dry-run] -- prepare PREPARE-ARGUMENTS

  --on slurm|kubernetes
  --tasks N               each does every N-th shard; the last to end finishes the dataset
  --cpus N                per task; default 4
  --memory SIZE           per task; default 8G (Kubernetes: 8Gi)
  --job-name NAME         default valle-prepare
  --time LIMIT, --partition NAME, --account NAME, --environment DIR     SLURM
  --image IMAGE, --claim NAME    Kubernetes: built from launch/Dockerfile with EXTRAS=text; volume claim, mounted at /data
  --dry-run               print the batch script or manifest instead of submitting it

Example:
  launch/prepare_array.sh --on slurm --tasks 100 -- prepare --source /data/LibriSpeech --out /data/sets/libri
END
}

options="on tasks cpus memory job_name time partition account environment image claim"
on= tasks= cpus=4 memory= job_name=valle-prepare time=24:00:00 partition= account= environment=${VIRTUAL_ENV:-} image= claim=
parse_options "$@"
require on tasks

printf -v arguments '%q ' "${verb[@]}" --processes "$cpus"
case $on in
  slurm)
    job="#!/usr/bin/env bash
#SBATCH --job-name=$job_name
#SBATCH --array=0-$((tasks - 1))
#SBATCH --cpus-per-task=$cpus
#SBATCH --mem=${memory:-8G}
#SBATCH --time=$time
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log
${partition:+#SBATCH --partition=$partition
}${account:+#SBATCH --account=$account
}${environment:+. $environment/bin/activate
}valle ${arguments% }"
    # The plan is made here, once, so that the tasks do not all list the source.
    run valle "${verb[@]}" --plan-only --shard-index 0 --num-shards "$tasks"
    submit=(sbatch)
    ;;
  kubernetes)
    require image claim
    printf -v words '%s' "$(printf '"%s", ' valle "${verb[@]}" --processes "$cpus" --num-shards "$tasks")"
    job="apiVersion: batch/v1
kind: Job
metadata: {name: $job_name}
spec:
  completionMode: Indexed
  completions: $tasks
  parallelism: $tasks
  backoffLimitPerIndex: 10
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: valle
        image: $image
        command: [${words%, }]
        resources: {requests: {cpu: \"$cpus\", memory: ${memory:-8Gi}}}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes:
      - {name: data, persistentVolumeClaim: {claimName: $claim}}"
    submit=(kubectl apply --filename -)
    ;;
  *) echo "--on is slurm or kubernetes" >&2; exit 2 ;;
esac

if [ -n "$dry_run" ]; then
  echo "$job"
else
  "${submit[@]}" <<<"$job"
fi
