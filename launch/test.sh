#!/usr/bin/env bash
# Installs everything the tests need into .venv-test, checks style and types, and runs the test suite.
#
#   launch/test.sh                       # options go on to pytest, e.g. -k packing
#   VALLE_SHARED=DIR launch/test.sh      # where DIR/speech holds the real recordings; tests that need them skip without
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh .venv-test
pip install --quiet --constraint launch/constraints-cpu.txt torch
pip install --quiet --constraint launch/constraints-cpu.txt --editable '.[text,quickstart,test]'
# Its metadata asks for the obsolete `typing` back-port, so its other dependencies are named in the extra `test`.
pip install --quiet --no-deps resemblyzer==0.1.4

ruff check .
ruff format --check .
mypy
# Two processes: compiling, which is most of the work, uses one core. A file stays in one, for its fixtures; the order is
# that of tests/conftest.py.
python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations=20 "$@"
