"""The shuttle: compiled when it is first needed, and what must be there for it to work."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "netlab"
SOURCES = ("shuttle.c", "lane.h")
OPTIONS = ("-O2", "-Wall", "-Wextra")
TUN = "/dev/net/tun"
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21


class LabError(Exception):
    """The laboratory cannot be made, or has broken down; the message says why."""


def may_make_networks(status: str) -> bool:
    """Whether a process with this /proc/PID/status has the capabilities; root in a container has not always."""
    held = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    wanted = 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN
    return held is not None and int(held[1], 16) & wanted == wanted


def missing() -> str:
    """What this machine lacks for a laboratory, like "root"; empty if nothing."""
    if sys.platform != "linux":
        return "Linux"
    if not may_make_networks(Path("/proc/self/status").read_text()):
        return "root"
    if not os.path.exists(TUN):
        return TUN
    for program, name in (("ip", "ip(8)"), ("cc", "a C compiler (cc)")):
        if shutil.which(program) is None:
            return name
    return ""


def shuttle() -> str:
    """The path of the program; compiled into a folder of the checkout that git ignores. Raises LabError."""
    content = b"".join((HERE / name).read_bytes() for name in SOURCES) + os.uname().machine.encode()
    program = CACHE / f"shuttle-{hashlib.sha256(content).hexdigest()[:16]}"
    if program.exists():
        return str(program)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:  # two tests may want it at the same time
        fresh = Path(folder) / "shuttle"
        command = ["cc", *OPTIONS, "-o", str(fresh), str(HERE / SOURCES[0])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"the shuttle does not compile:\n{done.stderr}")
        fresh.replace(program)
    return str(program)
