#!/usr/bin/env bash
# Runs valle on a TPU VM slice that it asks for as a queued resource, and asks again when the slice is preempted.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/command.sh"

usage() {
  cat <<'END'
usage: launch/tpu_vm.sh --name NAME --zone ZONE --type TYPE --source URL [options] [--dry-run] -- VALLE-ARGUMENTS

  --name NAME         of the queued resource and of its node
  --zone ZONE         such as us-east5-b
  --type TYPE         accelerator type, such as v5litepod-256, v4-128, v5p-64, v6e-64
  --source URL        what pip installs on every host, such as git+https://github.com/USER/valle-jax@REVISION or a gs:// wheel
  --project PROJECT   default: gcloud's
  --runtime VERSION   software of the VMs; default: by the type
  --spot yes          take preemptible capacity
  --dry-run           print the commands instead

Example:
  launch/tpu_vm.sh --name valle-ar --zone us-east5-b --type v5litepod-256 --spot yes --source git+https://… \
      -- train --preset base --stage ar --data gs://bucket/libri --workdir gs://bucket/ar --mesh data=64,fsdp=4 --steps 800000
END
}

options="name zone type source project runtime spot"
name= zone= type= source= project= runtime= spot=
parse_options "$@"
require name zone type source
if [ -z "$runtime" ]; then
  case $type in
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) runtime=tpu-ubuntu2204-base ;;
  esac
fi
where=(--zone "$zone" ${project:+--project "$project"})

# The same on every host. 75 asks for another start of the same command, which goes on from the newest checkpoint; so
# does 134, with which JAX ends the processes whose peer was lost.
printf -v arguments '%q ' "${verb[@]}"
remote="set -e
python3 -m venv --system-site-packages ~/valle 2>/dev/null || python3 -m venv ~/valle
~/valle/bin/pip install --quiet --upgrade 'valle-jax[tpu] @ $source'
export VALLE_DISTRIBUTED=auto
while :; do
  code=0; ~/valle/bin/valle ${arguments% } || code=\$?
  case \$code in 75 | 134) sleep 10 ;; *) exit \$code ;; esac
done"

state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format 'value(state.state)' 2>/dev/null || echo NONE
}

create() {
  run gcloud compute tpus queued-resources create "$name" --node-id "$name" "${where[@]}" \
    --accelerator-type "$type" --runtime-version "$runtime" ${spot:+--spot}
}

remove() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

work() {
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command "$remote"
}

if [ -n "$dry_run" ]; then
  create
  work
  echo "# when the slice is preempted: delete it, create it again, run the same"
  remove
  exit
fi

while :; do
  case $(state) in
    NONE) create ;;
    ACTIVE)
      if work; then exit 0; fi
      # Lost hosts or a failure of the work itself: a slice that is still there after a minute means the latter.
      sleep 60
      [ "$(state)" != ACTIVE ] || { echo "the work failed on a healthy slice, which is kept: $name" >&2; exit 1; }
      ;;
    FAILED | SUSPENDING | SUSPENDED) remove ;;
    *) sleep 30 ;;
  esac
done
