# Shared by the scripts of this folder, which source it. Sets:
#   root   the checkout, whatever the working directory was
# and defines ready(). POSIX sh.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1

# Says why an interpreter will not do; says nothing when it will. Runs on any Python there ever was.
probe='
import sys
if sys.version_info < (3, 11):
    sys.stdout.write("version %d.%d is too old" % sys.version_info[:2])
else:
    try:
        import ensurepip, ssl, venv
    except ImportError as error:
        sys.stdout.write("%s (on Debian and Ubuntu: apt install python3-venv)" % error)
'

# find_python: sets `python` to the first interpreter that is new enough and can make a virtual environment.
# A candidate may exist and still not run: a version manager leaves such shims behind.
find_python() {
    reasons=
    for python in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if ! command -v "$python" >/dev/null 2>&1; then
            reason="not found"
        elif ! reason=$("$python" -c "$probe" 2>/dev/null); then
            reason="does not run"
        elif [ -z "$reason" ]; then
            return 0
        fi
        reasons="$reasons
  $python: $reason"
    done
    echo "$0: needs Python 3.11 or later; name one with PYTHON=/path/to/python $0$reasons" >&2
    exit 1
}

# ready run|dev: sets `python` to that of a virtual environment in which the project is installed, `dev`: with its
# tools. Made at the first call, then reused, also without a network.
ready() {
    find_python
    python=$("$python" "$root/scripts/venv.py" "$1") || exit 1
}
