"""The legs through ssh: a second ssh whose port here leads to the far end's port on its loopback."""

import contextlib
import socket
from collections.abc import Iterator

from viamillipede.errors import NoContact
from viamillipede.ssh.aside import Aside
from viamillipede.ssh.control import Ended, Ssh
from viamillipede.ssh.messages import Answer, encode
from viamillipede.ssh.words import Asked

LOOPBACK = "127.0.0.1"
READY_S = 120.0  # a password may have to be typed again


@contextlib.contextmanager
def tunnel(asked: Asked, port: int, aside: Aside | None = None) -> Iterator[int]:
    """The port of our loopback that leads there. Raises NoContact.

    What ssh runs over there says that the forwarding is up, which ssh sets up first, and ends with its input, so that
    nothing is left however we end. Strangers may connect to the port; they have no key.
    """
    with _reserved() as ours:
        # A connection of its own: one that is shared would keep the forwarding when we are gone.
        options = (
            "-o",
            "ControlPath=none",
            "-o",
            "ExitOnForwardFailure=yes",
            "-L",
            f"{LOOPBACK}:{ours}:{LOOPBACK}:{port}",
        )
        ready = encode(Answer(port=ours)).decode().strip()
        with Ssh(asked.ssh, options, asked.dest, f"echo '{ready}' && cat >/dev/null", aside) as ssh:
            try:
                ssh.exchange(Answer, timeout_s=READY_S)
            except Ended as ended:
                raise NoContact(f"the tunnel to {asked.dest} is not up: ssh has ended ({ended.status})") from None
            except TimeoutError:
                raise NoContact(f"the tunnel to {asked.dest} is not up after {READY_S:.0f} s") from None
            yield ours


@contextlib.contextmanager
def _reserved() -> Iterator[int]:
    """A port of loopback that nobody else gets, and that ssh may listen on: it is bound, and reusable."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, 0))
        yield int(sock.getsockname()[1])
