#!/usr/bin/env bash
# Trains a small VALL-E from nothing on this machine's CPU and writes quickstart/report.html. About 15 minutes on 2 cores.
#
#   launch/quickstart.sh                 # options go on to `valle quickstart`, e.g. --minutes 30 --seed 1
#   PYTHON=python3.12 launch/quickstart.sh
set -euo pipefail
VALLE_QUICKSTART_STARTED=$(date +%s)
export VALLE_QUICKSTART_STARTED # the report's wall time then includes the installation
caller=$PWD
cd "$(dirname "$0")/.."
. launch/environment.sh .venv
pip install --quiet --constraint launch/constraints-cpu.txt --editable '.[quickstart]'
cd "$caller"
exec valle quickstart "$@"
