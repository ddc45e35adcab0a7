"""scripts/release: what it builds can be run, is for who it says, and is the same each time."""

import ast
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import demo  # noqa: E402
from releaselib import __main__ as command  # noqa: E402
from releaselib import common, launchers, library, package, source  # noqa: E402

from viamillipede import __version__  # noqa: E402
from viamillipede.completion import SHELLS  # noqa: E402
from viamillipede.config_files import read  # noqa: E402

EPOCH = 1_700_000_000
OTHER_PYTHON = "import importlib.machinery as m; m.EXTENSION_SUFFIXES[:] = ['.cpython-399-nowhere.so']; "


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> common.Release:
    """What scripts/release would build, at a time of our own."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    work = tmp_path / "work"
    work.mkdir()
    return common.describe(work)


def network(folder: Path) -> str:
    """Why what the build needs cannot be fetched; "" if it can."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "0", "--timeout", "10"]
    pin = common.CONSTRAINTS.read_text().split("\n")[-2]
    done = subprocess.run([*pip, "download", "--no-deps", "--dest", folder, pin], capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip() or "pip fails").splitlines()[-1]


# Everything, built once. ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_released(tmp_path: Path, release: common.Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one test, so that it is built once."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    if reason := network(tmp_path / "fetched"):
        pytest.skip(f"needs a package index: {reason}")
    monkeypatch.setattr(demo, "TRANSFER_S", 40)
    monkeypatch.setenv("DPKG_DEB_COMPRESSOR_LEVEL", "0")  # to be quick
    made = command.make(release.work)
    command.publish(made, tmp_path / "dist")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "dist", check=True)
    sdist, wheel, pyz, deb = made
    look_into_sdist(sdist)
    look_into_wheel(wheel)
    look_into_pyz(pyz, tmp_path)
    look_into_deb(deb, tmp_path / "root")
    again = common.Release(release.version, release.epoch, tmp_path / "again")
    again.work.mkdir()
    assert package.pack(again, release.work / "library").read_bytes() == deb.read_bytes()


def look_into_sdist(sdist: Path) -> None:
    """What git has, all of it; from no time and nobody."""
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    inside = {member.name.partition("/")[2] for member in members}
    expected = {str(path) for path in source.listing(ROOT)}
    assert not expected - inside
    assert {(member.mtime, member.uid, member.gid) for member in members} == {(EPOCH, 0, 0)}


def look_into_wheel(wheel: Path) -> None:
    """Every module, and nothing of the tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = {str(path) for path in source.listing(ROOT) if path.parts[0] == "viamillipede"}
    assert not modules - set(names)
    assert {name.partition("/")[0] for name in names} == {
        "viamillipede", f"viamillipede-{__version__}.data", f"viamillipede-{__version__}.dist-info"
    }  # fmt: skip


def look_into_pyz(pyz: Path, folder: Path) -> None:
    """What it says where it cannot be run: one line, and status 2."""
    start = f"import runpy; runpy.run_path({str(pyz)!r}, run_name='__main__')"
    for first, environment, words in [
        (OTHER_PYTHON, {}, f"this file needs Python {common.python_version()} (libraries "),
        ("", {"SHIV_ROOT": "/proc/absent"}, "there is no folder to unpack into"),
    ]:
        done = subprocess.run(
            [sys.executable, "-I", "-c", first + start], env=environment, capture_output=True, text=True, cwd=folder
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"viamillipede: {re.escape(words)}[^\n]*; [^\n]*\n", done.stderr), done.stderr
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert os.access(pyz, os.X_OK)


def look_into_deb(deb: Path, root: Path) -> None:
    """Where everything lies, and whose it is; what it needs; that nothing tells where it was built."""
    listing = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in listing.splitlines()} == {"root/root"}
    assert {line.split()[0] for line in listing.splitlines()} == {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"}
    subprocess.run(["dpkg-deb", "--raw-extract", deb, root], check=True)
    control = (root / "DEBIAN/control").read_text()
    minor = sys.version_info[1]
    assert f"\nVersion: {__version__}\n" in control
    assert f"\nDepends: python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~), libc6 (>= 2." in control
    assert (root / "DEBIAN/conffiles").read_text() == "/etc/viamillipede.conf\n"
    assert read([root / "etc/viamillipede.conf"]) == []
    subprocess.run(["md5sum", "--check", "--quiet", "DEBIAN/md5sums"], cwd=root, check=True)
    for page in ("man1/viamillipede.1", "man7/viamillipede.7"):
        packed = root / "usr/share/man" / f"{page}.gz"
        assert gzip.decompress(packed.read_bytes()) == (ROOT / "man" / Path(page).name).read_bytes()
    for shell in SHELLS:
        assert [path for path in (root / "usr/share").rglob("*viamillipede*") if shell in str(path)], shell
    assert {path.name for path in (root / "usr/lib/systemd/system").iterdir()} == {
        "viamillipede-rx@.service", "viamillipede-rx@.socket"
    }  # fmt: skip
    licences = (root / "usr/share/doc/viamillipede/copyright").read_text()
    for name in ("viamillipede", "uvloop", "xxhash", "psutil", "docopt-ng"):
        assert name in licences
    assert "usr/lib/viamillipede/docopt* " in licences
    launcher = root / "usr/bin/viamillipede"
    start = f"import runpy; runpy.run_path({str(launcher)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-c", OTHER_PYTHON + start], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"viamillipede: this file needs Python [^\n]*\n", done.stderr)
    built = [path for path in root.rglob("*") if path.is_file() and os.fsencode(ROOT) in path.read_bytes()]
    assert not built
    sources = [path for path in (root / "usr/lib/viamillipede").rglob("*.py")]
    assert sources
    for path in sources:
        assert (path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc").exists()


# Its parts. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [launchers.pyz_main, launchers.deb_launcher])
def test_any_python_can_read_how_it_starts(make: object) -> None:
    assert callable(make)
    text = make()
    ast.parse(text, feature_version=(3, 4))
    assert not re.search("@[A-Z]", text)
    before = text[: text.index("\ncheck()\n")]
    assert "f'" not in before and 'f"' not in before
    assert not re.search(r"^(?:from|import) (?!os$|sys$)", before, re.MULTILINE)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["py3-none-any"], (2, 17)),
        (["cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux2014_x86_64"], (2, 17)),
        (["cp311-cp311-manylinux_2_34_x86_64"], (2, 34)),
        (["cp311-cp311-manylinux_2_34_x86_64", "cp311-cp311-manylinux_2_28_x86_64"], (2, 28)),
        (["cp36-abi3-manylinux1_x86_64"], (2, 17)),
    ],
)
def test_the_oldest_glibc(tmp_path: Path, tags: list[str], expected: tuple[int, int]) -> None:
    for number, each in enumerate([["py3-none-any"], tags]):
        folder = tmp_path / f"x{number}.dist-info"
        folder.mkdir()
        (folder / "WHEEL").write_text("Wheel-Version: 1.0\n" + "".join(f"Tag: {tag}\n" for tag in each))
    assert library.oldest_glibc(tmp_path) == expected


def distribution(folder: Path, name: str, version: str) -> None:
    """What an installer leaves behind of one."""
    dist_info = folder / f"{name}-{version}.dist-info"
    dist_info.mkdir()
    (dist_info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\nLicense: MIT\n")


def test_what_is_not_pinned_does_not_go_in(tmp_path: Path) -> None:
    distribution(tmp_path, "viamillipede", "1")
    distribution(tmp_path, "docopt_ng", "0.9.0")
    library.check_pins(tmp_path)
    distribution(tmp_path, "Surprise", "1.0")
    with pytest.raises(common.Trouble, match=r"surprise 1\.0 goes in, but constraints\.txt has nothing"):
        library.check_pins(tmp_path)


def test_a_library_without_its_licence_does_not_go_in(tmp_path: Path) -> None:
    distribution(tmp_path, "viamillipede", "1")
    distribution(tmp_path, "docopt_ng", "0.9.0")
    with pytest.raises(common.Trouble, match=r"docopt-ng 0\.9\.0 comes without the text of its licence"):
        package.copyright_of(tmp_path)


def test_an_sdist_does_not_tell_who_packed_it(tmp_path: Path) -> None:
    sums = set()
    for umask, when in ((0o022, 1), (0o077, 2)):
        folder = tmp_path / str(when)
        folder.mkdir()
        file = folder / "run"
        file.write_text("x")
        os.utime(file, (when, when))
        file.chmod(0o777 & ~umask)
        with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
            archive.add(folder / "run", "a/run")
        source.repack(folder / "a.tar.gz", EPOCH)
        sums.add(hashlib.sha256((folder / "a.tar.gz").read_bytes()).hexdigest())
    assert len(sums) == 1
    with tarfile.open(tmp_path / "1" / "a.tar.gz") as archive:
        assert archive.extractfile("a/run") is not None


def test_trouble_is_told_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    mask = os.umask(0)
    os.umask(mask)
    try:
        assert command.main([]) == 1
    finally:
        os.umask(mask)
    assert capsys.readouterr().err == "scripts/release: SOURCE_DATE_EPOCH='yesterday' is no number of seconds\n"
    with pytest.raises(common.Trouble, match=r"^needs absent-tool, which is not installed$"):
        common.run("absent-tool")
    with pytest.raises(common.Trouble, match=r"^sh -c echo why >&2; exit 3: exit status 3\nwhy$"):
        common.run("sh", "-c", "echo why >&2; exit 3")


def test_everything_that_a_user_is_told_of_is_pinned() -> None:
    named = re.findall(r"^    ([a-z-]+) >= ", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    pinned = re.findall(r"^([a-z0-9-]+)==", common.CONSTRAINTS.read_text(), re.MULTILINE)
    needed = [name for name in named if name in (ROOT / "setup.cfg").read_text().partition("[options.packages")[0]]
    assert "uvloop" in needed
    assert not set(needed) - set(pinned)
