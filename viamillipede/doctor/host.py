"""What a check looks at: files below a root, which tests replace, and the few questions that no file answers."""

import fcntl
import os
import socket
import struct
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from viamillipede.aio.descriptors import PIPE_BYTES

_SIOCETHTOOL = 0x8946  # of linux/sockios.h
_OFFLOADS = {"tso": 0x1E, "gso": 0x23, "gro": 0x2B}  # ETHTOOL_GTSO, _GGSO, _GGRO of linux/ethtool.h
_UP = 0x1  # IFF_UP of linux/if.h
_UP_STATES = ("up", "unknown")  # a tunnel does not know


def largest_pipe_bytes() -> int | None:
    """How large a pipe this process can have now, up to PIPE_BYTES; None where pipes have no size to ask for."""
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        return None
    reader, writer = os.pipe()
    try:
        try:
            return fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            return fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    finally:
        os.close(reader)
        os.close(writer)


def splice_works() -> bool:
    """Whether bytes go from a socket to a pipe without a copy; tried with one byte."""
    if not hasattr(os, "splice"):
        return False
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    try:
        one.send(b"x")
        return os.splice(other.fileno(), writer, 1) == 1
    except OSError:
        return False
    finally:
        one.close()
        other.close()
        os.close(reader)
        os.close(writer)


def offloads(interface: str) -> dict[str, bool] | None:
    """Which of tso, gso and gro the interface does; None where it cannot be asked."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name, command in _OFFLOADS.items():
            value = array("I", [command, 0])  # struct ethtool_value
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])  # struct ifreq
            try:
                fcntl.ioctl(sock, _SIOCETHTOOL, request.ljust(40, b"\0"))
            except OSError:
                return None
            found[name] = bool(value[1])
    return found


@dataclass(frozen=True, slots=True)
class Host:
    """A host, or what a test makes of one."""

    root: Path = Path("/")
    system: str = sys.platform
    page_bytes: int = os.sysconf("SC_PAGE_SIZE")
    largest_pipe_bytes: Callable[[], int | None] = largest_pipe_bytes
    splice_works: Callable[[], bool] = splice_works
    offloads: Callable[[str], dict[str, bool] | None] = offloads

    def text(self, path: str) -> str | None:
        """A file, without white space around it; None if it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:  # also: a virtual interface has a file for its speed that cannot be read
            return None

    def numbers(self, path: str) -> list[int] | None:
        """A file of whole numbers; None if it is no such file."""
        text = self.text(path)
        try:
            return [int(word) for word in text.split()] if text else None
        except ValueError:
            return None

    def number(self, path: str) -> int | None:
        """The first number of a file."""
        found = self.numbers(path)
        return found[0] if found else None

    def sysctl(self, name: str) -> str | None:
        """A setting of the kernel by its name with dots."""
        return self.text(f"/proc/sys/{name.replace('.', '/')}")

    def sysctl_numbers(self, name: str) -> list[int] | None:
        """The same, as numbers."""
        return self.numbers(f"/proc/sys/{name.replace('.', '/')}")

    def sysctl_number(self, name: str) -> int | None:
        """The same, as one number."""
        return self.number(f"/proc/sys/{name.replace('.', '/')}")

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted; nothing if it cannot be read."""
        try:
            return sorted(each.name for each in (self.root / folder.lstrip("/")).iterdir())
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return (self.root / path.lstrip("/")).exists()

    def table(self, path: str) -> dict[str, str]:
        """A file of lines like `Name: value`."""
        lines = (self.text(path) or "").splitlines()
        return {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}

    def interfaces(self) -> list[str]:
        """The interfaces that are up and lead somewhere: those of a device, and where the default route goes."""
        routes = [line.split() for line in (self.text("/proc/net/route") or "").splitlines()[1:]]
        default = {row[0] for row in routes if len(row) > 1 and row[1] == "00000000"}
        return [
            name
            for name in self.names("/sys/class/net")
            if name != "lo" and (self.exists(f"/sys/class/net/{name}/device") or name in default) and self._is_up(name)
        ]

    def speed_mbit(self, interface: str) -> int | None:
        """What both ends of its link have agreed on; None where it is not told, or made up, as tunnels do."""
        folder = f"/sys/class/net/{interface}"
        if not self.exists(f"{folder}/device") and not self.exists(f"{folder}/bonding"):
            return None
        mbit = self.number(f"{folder}/speed")
        return mbit if mbit is not None and mbit > 0 else None

    def _is_up(self, interface: str) -> bool:
        flags, state = (self.text(f"/sys/class/net/{interface}/{name}") for name in ("flags", "operstate"))
        try:
            return bool(int(flags or "0", 16) & _UP) and state in _UP_STATES
        except ValueError:
            return False
