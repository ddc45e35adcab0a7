"""The first lines that run of the zipapp and of the Debian package.

Any Python can read them, and says in one line if it is not the one that the rest was compiled for.
"""

from releaselib.common import library_suffix, python_version

_CHECK = r"""
import os
import sys

SUFFIX = "@SUFFIX@"  # of the compiled libraries inside: which Python, machine and C library they are for


def refuse(why):
    sys.stderr.write("viamillipede: " + why + "\n")
    sys.exit(2)


def check():
    try:
        from importlib.machinery import EXTENSION_SUFFIXES
    except ImportError:
        EXTENSION_SUFFIXES = []
    if SUFFIX not in EXTENSION_SUFFIXES:
        found = "%s is %s %d.%d on %s" % (
            sys.executable or "this",
            getattr(getattr(sys, "implementation", None), "name", "Python"),
            sys.version_info[0],
            sys.version_info[1],
            " ".join((os.uname()[0], os.uname()[4])),
        )
        refuse("this file needs Python @PYTHON@ (libraries " + SUFFIX + "), and " + found + "; @REMEDY@")


check()
"""

_DEB = r'''
#!/usr/bin/python3 -I
"""Starts viamillipede, whose library is where this file's package has put it: in ../lib/viamillipede."""

@CHECK@
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib", "viamillipede"))

from viamillipede.__main__ import run

run()
'''

_PYZ = r'''
"""Begins viamillipede.pyz: unpacks what is inside, once, into a folder of the user's, and starts it there."""

@CHECK@

def private(folder):
    """Whether this folder, in which everybody may write, is ours alone; made if it is not there."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(folder)
    return status.st_mode & 0o170077 == 0o040000 and status.st_uid == os.geteuid()


def usable(folder, shared):
    """Whether libraries can be unpacked into it, and run from there."""
    try:
        if shared:
            if not private(folder):
                return False
        else:
            os.makedirs(folder, 0o700, exist_ok=True)
        return os.access(folder, os.R_OK | os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_NOEXEC
    except OSError:
        return False


def folders():
    """Where to unpack, in order of preference, and whether others may write beside it."""
    if os.environ.get("SHIV_ROOT"):
        yield os.path.abspath(os.path.expanduser(os.environ["SHIV_ROOT"])), False
        return
    home = os.environ.get("HOME", "")
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if cache.startswith("/"):
        yield os.path.join(cache, "viamillipede"), False
    if home.startswith("/") and os.path.isdir(home):
        yield os.path.join(home, ".cache", "viamillipede"), False
    for place in (os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("TMPDIR", ""), "/var/tmp", "/tmp", "/dev/shm"):
        if place.startswith("/"):
            yield os.path.join(place, "viamillipede-%d" % os.geteuid()), True


def start():
    folder = next((folder for folder, shared in folders() if usable(folder, shared)), None)
    if folder is None:
        refuse("there is no folder to unpack into that can be written to and run from; name one with SHIV_ROOT=/folder")
    import _bootstrap

    _bootstrap.Environment.root = property(lambda self: folder)  # and no variable, which commands would inherit
    try:
        _bootstrap.bootstrap()
    except OSError as error:
        why = error.strerror or error
        refuse("cannot unpack into %s: %s; name another folder with SHIV_ROOT=/folder" % (folder, why))
    except ImportError as error:
        refuse("what was unpacked into %s is damaged (%s); remove that folder and start again" % (folder, error))


start()
'''


def deb_launcher() -> str:
    """/usr/bin/viamillipede of the Debian package."""
    return _filled(_DEB, "install the package that is made for it")


def pyz_main() -> str:
    """__main__.py of the zipapp."""
    return _filled(_PYZ, f"run it with python{python_version()}")


def _filled(text: str, remedy: str) -> str:
    values = {"CHECK": _CHECK, "SUFFIX": library_suffix(), "PYTHON": python_version(), "REMEDY": remedy}
    for name, value in values.items():
        text = text.replace(f"@{name}@", value.strip())
    return text.lstrip()
