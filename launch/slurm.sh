#!/usr/bin/env bash
# Runs valle on GPU nodes under SLURM: one process per GPU, requeued when it is preempted or reaches its time limit.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/command.sh"

usage() {
  cat <<'END'
usage: launch/slurm.sh --nodes N [options] [--dry-run] -- VALLE-ARGUMENTS

  --nodes N               nodes of the job
  --gpus-per-node N       default 8
  --cpus-per-gpu N        default 8
  --time LIMIT            default 24:00:00; three minutes before it the run saves and is queued again
  --partition NAME, --account NAME, --job-name NAME
  --array N               N jobs of that size, which know their number by SLURM_ARRAY_TASK_ID (0 to N - 1)
  --dependency SPEC       such as afterok:JOB, as sbatch takes it
  --environment DIR       virtual environment with `valle-jax[cuda]`; default: the one that is active
  --dry-run               print the batch script instead of submitting it

Example:
  launch/slurm.sh --nodes 4 --partition gpu -- train --preset base --stage ar --data /data/libri --workdir /runs/ar --steps 800000
END
}

options="nodes gpus_per_node cpus_per_gpu time partition account job_name array dependency environment"
nodes= gpus_per_node=8 cpus_per_gpu=8 time=24:00:00 partition= account= job_name=valle array= dependency= environment=${VIRTUAL_ENV:-}
parse_options "$@"
require nodes

printf -v arguments '%q ' "${verb[@]}"
script="#!/usr/bin/env bash
#SBATCH --job-name=$job_name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$gpus_per_node
#SBATCH --gpus-per-node=$gpus_per_node
#SBATCH --cpus-per-task=$cpus_per_gpu
#SBATCH --time=$time
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
${partition:+#SBATCH --partition=$partition
}${account:+#SBATCH --account=$account
}${array:+#SBATCH --array=0-$((${array:-1} - 1))
}${dependency:+#SBATCH --dependency=$dependency
}${environment:+. $environment/bin/activate
}# Processes find each other by what srun sets. 75: saved, to be started again; 134: a peer was lost.
# --wait: time for the last to finish.
code=0
srun --kill-on-bad-exit=0 --wait=120 valle ${arguments% } || code=\$?
case \$code in 75 | 134) exec scontrol requeue \$SLURM_JOB_ID ;; esac
exit \$code"

if [ -n "$dry_run" ]; then
  echo "$script"
else
  sbatch <<<"$script"
fi
