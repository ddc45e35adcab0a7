"""Bringing the program along: the zipapp that we are, or that is named, goes through ssh before the request does.

What is installed here cannot be brought: it has compiled libraries in many folders, made for this Python and this
machine. A zipapp has all of them in one file and says itself, in one line, where it does not run. Over there a few
lines of Python take it into a private folder, run it, and remove the folder when it has ended, however that was.
"""

import base64
import sys
import zipfile
from pathlib import Path

from viamillipede.errors import UsageError
from viamillipede.ssh.messages import PROTOCOL
from viamillipede.ssh.words import Asked

BYTES_MAX = 256 << 20  # no zipapp of ours is so large
PYTHON_MIN = (3, 11)
ZIPAPP = "viamillipede-VERSION.pyz"  # what scripts/release makes
_NONE = f"this program is no zipapp that could be brought; say 'bring-file FILE' with {ZIPAPP}"

# Any Python can read it, so that one which is too old can say so. The zipapp's own first lines look further.
_TAKER = r"""
import json, os, shutil, signal, subprocess, sys, tempfile
count, least, protocol = int(sys.argv[1]), tuple(map(int, sys.argv[2].split("."))), int(sys.argv[3])
def refuse(why):
    found = {"viamillipede": protocol, "kind": "answer", "status": 3, "error": why, "wire": 0, "version": ""}
    sys.stdout.write("\n" + json.dumps(found) + "\n")
    sys.exit(3)
if sys.version_info[:2] < least:
    refuse("%s is Python %d.%d, and %s or newer is needed; name another one with far-command"
           % ((sys.executable,) + tuple(sys.version_info[:2]) + (sys.argv[2],)))
child = None
def stop(number, frame):
    if child is not None:
        child.send_signal(number)
    else:
        sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, stop)
try:
    folder = tempfile.mkdtemp(prefix="viamillipede-")
except OSError as error:
    refuse("there is no room for the program: %s" % error)
status = 1
try:
    path = os.path.join(folder, "viamillipede.pyz")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "wb") as file:
        while count:
            piece = os.read(0, min(count, 65536))
            if not piece:
                sys.exit(3)
            file.write(piece)
            count -= len(piece)
    environ = dict(os.environ, SHIV_ROOT=os.path.join(folder, "unpacked"))
    child = subprocess.Popen([sys.executable, path, "far-end"], env=environ)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    status = child.wait()
except OSError as error:
    refuse("the program cannot be taken: %s" % error)
finally:
    shutil.rmtree(folder, ignore_errors=True)
sys.exit(status if status >= 0 else 128 - status)
"""


def zipapp(asked: Asked) -> Path:
    """The file to bring. Raises UsageError where there is none, or it is not ours."""
    if asked.bring_file:
        path = Path(asked.bring_file).expanduser()
        if not path.is_file():
            raise UsageError(f"bring-file: {path} is no file; scripts/release makes {ZIPAPP}")
    else:
        path = Path(sys.argv[0])
        if not is_zipapp():
            raise UsageError(f"bring: {_NONE}")
    word = "bring-file" if asked.bring_file else "bring"
    try:
        if not zipfile.is_zipfile(path) or path.stat().st_size > BYTES_MAX:
            raise UsageError(f"{word}: {path} is no zipapp of viamillipede")
        with zipfile.ZipFile(path) as archive:
            archive.getinfo("__main__.py")
    except KeyError:
        raise UsageError(f"{word}: {path} is an archive, but no zipapp: it has no __main__.py") from None
    except OSError as error:
        raise UsageError(f"{word}: {path} cannot be read: {error.strerror}") from error
    return path


def is_zipapp() -> bool:
    """Whether this program is one, and could be brought."""
    path = Path(sys.argv[0])
    return path.is_file() and zipfile.is_zipfile(path)


def taker(python: str, count: int) -> str:
    """The command line for the other host: take so many bytes, and run them as the far end. `python`: as it is said."""
    packed = base64.b64encode(_TAKER.encode()).decode()
    # In this form it has nothing in it that any login shell would take for something of its own.
    code = f"import base64;exec(base64.b64decode('{packed}'))"
    least = ".".join(map(str, PYTHON_MIN))
    return f'{python} -c "{code}" {count} {least} {PROTOCOL}'
