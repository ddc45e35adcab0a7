"""The zipapp: one file with everything that a bare Python needs."""

import sys
import zipfile
from pathlib import Path

from releaselib.common import NAME, Release, run
from releaselib.launchers import pyz_main

_SHEBANG = "/usr/bin/env python3"


def pack(release: Release, library: Path) -> Path:
    """viamillipede-VERSION.pyz of what is in `library`. Raises Trouble."""
    raw, packed = release.work / "raw.pyz", release.work / f"{NAME}-{release.version}.pyz"
    shiv = (
        sys.executable,
        "-m",
        "shiv",
        "--reproducible",
        "--python",
        _SHEBANG,
        "--entry-point",
        f"{NAME}.__main__:run",
    )
    run(*shiv, "--site-packages", library, "--output-file", raw, env=release.environment)
    with zipfile.ZipFile(raw) as old, packed.open("wb") as file:
        file.write(f"#!{_SHEBANG}\n".encode())
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in sorted(old.infolist(), key=lambda entry: entry.filename):
                data = pyz_main().encode() if entry.filename == "__main__.py" else old.read(entry)
                fresh = zipfile.ZipInfo(entry.filename, entry.date_time)
                fresh.external_attr = 0o100644 << 16
                fresh.compress_type = zipfile.ZIP_DEFLATED
                new.writestr(fresh, data)
    packed.chmod(0o755)
    raw.unlink()
    return packed
