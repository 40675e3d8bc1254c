# Sourced by the launchers beside it: options, and commands that a dry run prints instead of running.
#
# A launcher declares `usage` and calls `parse_options "$@"`, which sets a variable per --option (dashes become
# underscores), and `verb` from what follows `--`: the arguments of `valle`.

parse_options() {
  dry_run=
  verb=()
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --dry-run) dry_run=1 ;;
      --) shift; verb=("$@"); break ;;
      --*=*) _set_option "${1%%=*}" "${1#*=}" ;;
      --*) [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }
        _set_option "$1" "$2"; shift ;;
      *) echo "unexpected argument $1; the arguments of valle stand behind --" >&2; exit 2 ;;
    esac
    shift
  done
  [ ${#verb[@]} -gt 0 ] || { echo "nothing to run: give valle's arguments behind --, such as -- train --preset base …" >&2; exit 2; }
}

_set_option() {
  local _option=${1#--}
  _option=${_option//-/_}
  case " $options " in
    *" $_option "*) printf -v "$_option" %s "$2" ;;
    *) echo "unknown option $1; see --help" >&2; exit 2 ;;
  esac
}

require() {
  local _option
  for _option in "$@"; do
    [ -n "${!_option}" ] || { echo "--${_option//_/-} is missing; see --help" >&2; exit 2; }
  done
}

# Runs a command, or prints it so that it can be pasted into a shell.
run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}
