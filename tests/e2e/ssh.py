"""A real sshd on loopback with keys and a configuration of its own, and tunnels through it. Touches nobody's files."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
PRIVILEGE_SEPARATION = Path("/run/sshd")  # sshd wants this folder when root starts it
SOCKETS = Path("/proc/net/tcp")  # says who listens
WITH_FOLDER = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"'
PATIENCE_S = 30


def missing() -> str:
    """What a tunnel needs and this machine has not; "" if it has all."""
    tools = {"sshd": SSHD, "ssh": shutil.which("ssh"), "ssh-keygen": shutil.which("ssh-keygen")}
    if lacking := [name for name, path in tools.items() if path is None]:
        return f"needs {' and '.join(lacking)}"
    if not SOCKETS.is_file():
        return f"needs {SOCKETS}"
    if wrapper() and subprocess.run([*wrapper(), "true"], capture_output=True).returncode != 0:
        return f"needs sshd with {PRIVILEGE_SEPARATION}, or a mount namespace to make one"
    return ""


def wrapper() -> list[str]:
    """Where root has never started sshd as a service, its folder is made, in a mount namespace that dies with it."""
    if os.geteuid() != 0 or PRIVILEGE_SEPARATION.is_dir():
        return []
    return ["unshare", "--mount", "sh", "-c", WITH_FOLDER, "sh"]


def free_port() -> socket.socket:
    """A port that the kernel chose, bound and not listened on: nobody else gets it, and ssh may listen on it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


def listens(port: int) -> bool:
    """Whether somebody does, without connecting: /proc says it."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    return wanted in SOCKETS.read_text()


def _wait_for(port: int, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not listens(port):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


class Sshd:
    """The server, for as long as the `with` lasts; `folder` must be empty, private and ours."""

    def __init__(self, folder: Path) -> None:
        assert SSHD is not None
        self._folder = folder
        for name in ("host", "client"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "client.pub", folder / "authorized")
        self._reserved = free_port()
        self.port = int(self._reserved.getsockname()[1])
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
            "KbdInteractiveAuthentication no\nAllowTcpForwarding yes\n"
        )
        self._log = folder / "sshd.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*wrapper(), SSHD, "-D", "-e", "-f", str(folder / "config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        _wait_for(self.port, self._process, self._log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._reserved.close()
        deadline = time.monotonic() + PATIENCE_S
        while psutil.Process(self._process.pid).children() and time.monotonic() < deadline:
            time.sleep(0.01)  # a process for each tunnel, which ends because that did
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        if kind is not None:
            print(f"--- sshd:\n{self._log.read_text()}")

    def tunnel(self) -> "Tunnel":
        """A tunnel that is not up yet, with a port of its own."""
        return Tunnel(self, self._folder)


class Tunnel:
    """ssh -L from a port of its own, which stays the same over restarts."""

    def __init__(self, sshd: Sshd, folder: Path) -> None:
        self._sshd, self._folder = sshd, folder
        self._reserved = free_port()
        self.port = int(self._reserved.getsockname()[1])
        self._process: subprocess.Popen[str] | None = None

    def up(self, target: int) -> None:
        """Start it, to this port. When nobody listens there, it accepts and closes."""
        assert self._process is None
        log = self._folder / f"tunnel{self.port}.log"
        options = {"IdentityFile": self._folder / "client", "IdentitiesOnly": "yes", "IdentityAgent": "none",
                   "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null",
                   "GlobalKnownHostsFile": "/dev/null", "ExitOnForwardFailure": "yes",
                   "BatchMode": "yes", "LogLevel": "ERROR"}  # fmt: skip
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        forward = f"127.0.0.1:{self.port}:127.0.0.1:{target}"
        user = pwd.getpwuid(os.geteuid()).pw_name
        with log.open("a") as file:
            self._process = subprocess.Popen(
                ["ssh", "-F", "none", *words, "-N", "-L", forward, "-p", str(self._sshd.port), f"{user}@127.0.0.1"],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True,
            )  # fmt: skip
        _wait_for(self.port, self._process, log)

    def down(self) -> None:
        """kill -9: its connections are reset, its port refuses."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Down, and the port given back."""
        self.down()
        self._reserved.close()
