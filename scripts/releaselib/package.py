"""The Debian package: the library in a folder of its own, a launcher, and what belongs to a system's tool."""

import compileall
import gzip
import hashlib
import os
import py_compile
import shutil
import sys
from pathlib import Path

from releaselib.common import NAME, ROOT, Release, Trouble, python_version, run
from releaselib.launchers import deb_launcher
from releaselib.library import distributions, licence_of, modules_of, oldest_glibc, version_of
from viamillipede import completion, config_files, places

_COMPLETIONS = {
    "bash": f"usr/share/bash-completion/completions/{NAME}",
    "zsh": f"usr/share/zsh/vendor-completions/_{NAME}",
    "fish": f"usr/share/fish/vendor_completions.d/{NAME}.fish",
}
_UNITS = "usr/lib/systemd/system"
_LIBRARY = f"usr/lib/{NAME}"
_DOC = f"usr/share/doc/{NAME}"
_SUMMARY = "move one pipe over many TCP connections, whole and in order"
_DESCRIPTION = """\
 viamillipede cuts a stream into frames, spreads them over several TCP
 connections, over one network or several, and delivers them whole and in
 order on another host, like a pipe: for tar, zfs send, pg_basebackup, dd.
 Connections may break, stall and come back; both sides exit 0 only when
 every byte has arrived and the commands at both ends have succeeded.
 .
 The Python libraries that it needs are inside, in a folder of its own.
"""


def pack(release: Release, library: Path) -> Path:
    """viamillipede_VERSION_ARCHITECTURE.deb of what is in `library`. Raises Trouble."""
    root = release.work / "package"
    root.mkdir()
    fill(release, library, root)
    architecture = run("dpkg", "--print-architecture").strip()
    (root / "DEBIAN").mkdir()
    _write(root, "DEBIAN/control", control(release, library, root, architecture))
    _write(root, "DEBIAN/conffiles", f"{places.SYSTEM_FILE}\n")
    _write(root, "DEBIAN/md5sums", _md5sums(root))
    for path in [root, *root.rglob("*")]:
        executable = path.is_dir() or path.parent.name == "bin"
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (release.epoch, release.epoch))
    packed = release.work / f"{NAME}_{release.version}_{architecture}.deb"
    build = ("dpkg-deb", "--build", "--root-owner-group", "-Zxz", root, packed)
    run(*build, env=release.environment)
    return packed


def fill(release: Release, library: Path, root: Path) -> None:
    """What the package installs, below `root`."""
    shutil.copytree(library, root / _LIBRARY, ignore=shutil.ignore_patterns("__pycache__"))
    _compile(root / _LIBRARY, f"/{_LIBRARY}")
    _write(root, f"usr/bin/{NAME}", deb_launcher())
    for page in sorted((ROOT / "man").glob("*.[1-9]")):
        _write_compressed(root, f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz", page.read_bytes())
    for shell, path in _COMPLETIONS.items():
        _write(root, path, completion.completion(shell))
    for unit in sorted((ROOT / "scripts" / "packaging").iterdir()):
        _write(root, f"{_UNITS}/{unit.name}", unit.read_text())
    _write(root, str(places.SYSTEM_FILE)[1:], config_files.sample())
    (root / "etc" / NAME).mkdir()  # for what the units read
    _write(root, f"{_DOC}/copyright", copyright_of(library))
    _write_compressed(root, f"{_DOC}/changelog.gz", (ROOT / "CHANGELOG.md").read_bytes())
    _write_compressed(root, f"{_DOC}/README.md.gz", (ROOT / "README.md").read_bytes())


def control(release: Release, library: Path, root: Path, architecture: str) -> str:
    """What the package says of itself. It is for one version of Python: the libraries are compiled for it."""
    major, minor = sys.version_info[:2]
    kib = sum(-(-path.lstat().st_size // 1024) for path in root.rglob("*") if path.is_file())
    needs = [f"python3 (>= {python_version()}~)", f"python3 (<< {major}.{minor + 1}~)"]
    needs.append("libc6 (>= {}.{})".format(*oldest_glibc(library)))
    fields = {
        "Package": NAME,
        "Version": release.version,
        "Architecture": architecture,
        "Maintainer": "The viamillipede authors",
        "Installed-Size": str(kib),
        "Depends": ", ".join(needs),
        "Section": "net",
        "Priority": "optional",
        "Description": f"{_SUMMARY}\n{_DESCRIPTION}",
    }
    return "".join(f"{name}: {value.rstrip()}\n" for name, value in fields.items())


def copyright_of(library: Path) -> str:
    """Our licence and that of each library inside, in Debian's format. Raises Trouble for one without."""
    parts = [
        f"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: {NAME}\n",
        _stanza("*", "The viamillipede authors", "BSD-2-Clause", (ROOT / "LICENSE").read_text()),
    ]
    for name, dist_info in distributions(library).items():
        short, text = licence_of(dist_info)
        if not text:
            raise Trouble(f"{name} {version_of(dist_info)} comes without the text of its licence")
        files = " ".join(f"{_LIBRARY}/{each}*" for each in (*modules_of(dist_info), dist_info.name))
        parts.append(_stanza(files, f"see below ({name} {version_of(dist_info)})", short, text))
    return "\n".join(parts)


def _stanza(files: str, holders: str, short: str, text: str) -> str:
    lines = "".join(f" {line}\n" if line.strip() else " .\n" for line in text.strip().splitlines())
    return f"Files: {files}\nCopyright: {holders}\nLicense: {short}\n{lines}"


def _compile(folder: Path, installed: str) -> None:
    """Byte code beside the sources: nobody but root could write it there later, and a start would take a second."""
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(
        folder, quiet=2, stripdir=str(folder), prependdir=installed, invalidation_mode=unchecked, workers=1
    ):
        raise Trouble(f"something in {folder} cannot be compiled")


def _write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_compressed(root: Path, name: str, data: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0))


def _md5sums(root: Path) -> str:
    found = sorted(path for path in root.rglob("*") if path.is_file() and "DEBIAN" not in path.relative_to(root).parts)
    conffile = root / str(places.SYSTEM_FILE)[1:]
    return "".join(
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n"
        for path in found
        if path != conffile
    )
