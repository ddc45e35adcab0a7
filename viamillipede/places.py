"""Where configuration files may be; what reads them is imported only when there is one."""

from collections.abc import Mapping
from pathlib import Path

SYSTEM_FILE = Path("/etc/viamillipede.conf")


def places(environ: Mapping[str, str]) -> list[Path]:
    """Where the files may be: that of the host, and that of the user as far as there is one; the last one wins."""
    folder = environ.get("XDG_CONFIG_HOME", "")
    if not folder.startswith("/"):  # as its specification says of a relative one
        home = environ.get("HOME", "")
        folder = f"{home}/.config" if home.startswith("/") else ""
    return [SYSTEM_FILE, *([Path(folder) / "viamillipede" / "config"] if folder else [])]
