"""The wheel and what it needs, in one folder: the inside of the zipapp and of the Debian package."""

import email
import re
import shutil
import sys
from pathlib import Path

from releaselib.common import CONSTRAINTS, NAME, Release, Trouble, run

# Of what an installer writes, this is left out: it tells of this machine, or is for an uninstaller.
_INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json")
# For those who compile against it; nobody does with a copy that is private.
_SOURCES = (".pyx", ".pxd", ".pxi", ".c", ".h")
# The oldest glibc that a wheel runs with, by the older names of its tag (PEP 600).
_LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


def install(release: Release, wheel: Path) -> Path:
    """The folder, with nothing in it that depends on this machine. Raises Trouble."""
    folder = release.work / "library"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    # Only wheels: what was compiled here would need this machine's C library.
    run(*pip, "install", "--only-binary", ":all:", "--no-compile", "--target", folder, wheel, env=release.environment)
    for name in ("bin", "share"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in folder.rglob("*"):
        of_installer = path.parent.suffix == ".dist-info" and path.name in _INSTALLERS
        if path.is_file() and (of_installer or path.suffix in _SOURCES):
            path.unlink()
        else:
            path.chmod(0o755 if path.is_dir() else 0o644)
    for record in folder.glob("*.dist-info/RECORD"):
        left = [line for line in record.read_text().splitlines() if (folder / line.partition(",")[0]).is_file()]
        record.write_text("".join(f"{line}\n" for line in sorted(left)))
    check_pins(folder)
    return folder


def modules_of(dist_info: Path) -> list[str]:
    """The packages and modules of an installed distribution: names of folders and files in the library."""
    lines = (dist_info / "RECORD").read_text().splitlines()
    return sorted({line.partition(",")[0].partition("/")[0] for line in lines} - {dist_info.name})


def distributions(folder: Path) -> dict[str, Path]:
    """The dist-info folders by name, as PEP 503 writes it, ours left out."""
    found = {_normal(_metadata(path)["Name"]): path for path in folder.glob("*.dist-info")}
    if found.pop(NAME, None) is None:
        raise Trouble(f"{NAME} itself was not installed in {folder}")
    return dict(sorted(found.items()))


def version_of(dist_info: Path) -> str:
    """The version of an installed distribution."""
    return str(_metadata(dist_info)["Version"])


def licence_of(dist_info: Path) -> tuple[str, str]:
    """What a distribution says its licence is, and the texts of it."""
    metadata = _metadata(dist_info)
    classifiers = [text.rpartition(":: ")[2] for text in metadata.get_all("Classifier", []) if "License ::" in text]
    short = (metadata["License-Expression"] or metadata["License"] or ", ".join(classifiers)).splitlines()[0]
    files = sorted(path for path in dist_info.rglob("*") if re.match("(?i)(un)?licen[cs]e|copying|notice", path.name))
    return short, "\n\n".join(path.read_text(errors="replace").strip() for path in files if path.is_file())


def check_pins(folder: Path) -> None:
    """Trouble for a distribution whose version is not the one in constraints.txt."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE))
    for name, path in distributions(folder).items():
        if pinned.get(name) != version_of(path):
            raise Trouble(
                f"{name} {version_of(path)} goes in, but {CONSTRAINTS.name} has {pinned.get(name, 'nothing')}"
            )


def oldest_glibc(folder: Path) -> tuple[int, int]:
    """The oldest C library with which all of it runs."""
    needed = [(2, 17)]
    for path in folder.glob("*.dist-info/WHEEL"):
        tags = email.message_from_string(path.read_text()).get_all("Tag", [])
        found = [glibc for tag in tags if (glibc := _glibc(tag.rpartition("-")[2])) is not None]
        needed += [min(found)] if found else []
    return max(needed)


def _glibc(platform: str) -> tuple[int, int] | None:
    """What a platform tag such as manylinux_2_17_x86_64 asks for."""
    if match := re.match(r"manylinux_(\d+)_(\d+)_", platform):
        return int(match[1]), int(match[2])
    return _LEGACY.get(platform.partition("_")[0])


def _metadata(dist_info: Path) -> "email.message.Message[str, str]":
    return email.message_from_string((dist_info / "METADATA").read_text(errors="replace"))


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
