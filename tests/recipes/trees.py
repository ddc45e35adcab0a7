"""A tree of files with everything that a backup loses easily, and what two trees differ in."""

import contextlib
import os
import stat
from pathlib import Path
from random import Random

from tests.e2e.helpers import KIB, MIB, some_bytes

SPARSE_BYTES = 64 * MIB
ODD_NAMES = ("a b", "new\nline", "-rf", "ends with \\", "tab\t", "ümlaut", "'quoted'", "$HOME", "*")
Entry = tuple[object, ...]


def plant(root: Path, bulk_bytes: int = 8 * MIB) -> None:
    """Fill a folder: odd names, permissions, links, a sparse file, a fifo, attributes, `bulk_bytes` in many files."""
    for name in ODD_NAMES:
        (root / name).mkdir()
        (root / name / (name + ".txt")).write_text(name)
    os.close(os.open(os.fsencode(root) + b"/not utf-8 \xff", os.O_CREAT | os.O_WRONLY, 0o640))
    for mode in (0o600, 0o644, 0o755, *((0o4755, 0o000) if os.geteuid() == 0 else ())):  # only root gets these back
        path = root / f"mode{mode:o}"
        path.write_bytes(some_bytes(KIB, seed=mode))
        path.chmod(mode)
    (root / "empty").mkdir(mode=0o700)
    (root / "to a file").symlink_to("mode644")
    (root / "to nowhere").symlink_to("/nowhere/at\nall")
    os.link(root / "mode644", root / "also mode644")
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as file:
        file.seek(SPARSE_BYTES // 2)
        file.write(b"an island")
        file.truncate(SPARSE_BYTES)
    for name in ("user.colour", "trusted.note"):  # the second only root can set, and tar leaves it out if not told
        with contextlib.suppress(OSError):  # not every file system has them
            os.setxattr(root / "mode600", name, b"red\0 and green")
    bulk, count = root / "bulk", 64
    bulk.mkdir()
    for number in range(count):
        (bulk / f"{number}").write_bytes(some_bytes(bulk_bytes // count, seed=number))
    random = Random(1)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (random.randrange(1 << 30),) * 2, follow_symlinks=False)


def look(root: Path, attributes: bool) -> dict[bytes, Entry]:
    """Every entry below `root` by its name: type, permissions, owner, time in seconds, contents, and links.

    The extended attributes are part of it if asked for.
    """
    found: dict[bytes, Entry] = {}
    first_names: dict[int, bytes] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)
            relative, status = os.path.relpath(path, os.fsencode(root)), os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            entry: Entry = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                int(status.st_mtime),
                content,
                status.st_nlink,
            )
            if attributes:
                entry += (sorted((key, os.getxattr(path, key, follow_symlinks=False)) for key in keys(path)),)
            found[relative] = entry
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                found[relative] += (first_names.setdefault(status.st_ino, relative),)
    return found


def keys(path: bytes) -> list[str]:
    """The names of an entry's extended attributes, but not those that the machine sets itself."""
    return [key for key in os.listxattr(path, follow_symlinks=False) if not key.startswith(("security.", "system."))]


def assert_same(one: Path, other: Path, attributes: bool = False) -> None:
    """The trees are equal; what differs is named."""
    a, b = look(one, attributes), look(other, attributes)
    assert a, "there is nothing to compare"
    assert not (lost := a.keys() - b.keys()), f"lost: {sorted(lost)[:5]}"
    assert not (extra := b.keys() - a.keys()), f"not in the source: {sorted(extra)[:5]}"
    assert not (other_ones := [name for name in a if a[name] != b[name]]), f"changed: {other_ones[:5]}"
