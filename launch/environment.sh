# Sourced by the scripts beside it: finds a Python >= 3.11, makes a virtual environment and activates it.
#
#   . launch/environment.sh DIR
#
# PYTHON names the interpreter to use, e.g. PYTHON=python3.12.

_find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "valle-jax needs Python 3.11 or newer with venv; name one with PYTHON=…" >&2
  return 1
}

_python=$(_find_python) || exit 1
[ -x "$1/bin/python" ] || "$_python" -m venv "$1"
. "$1/bin/activate"
export PIP_DISABLE_PIP_VERSION_CHECK=1
