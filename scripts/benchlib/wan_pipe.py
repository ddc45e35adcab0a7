"""The ends of a pipe for `scripts/bench wan`, and a transfer over MPTCP. Run by its path, with `python -S`.

source FILE RATE    writes the file, RATE bytes per second (0: as fast as the pipe takes them)
check FILE          reads a stream that must be exactly what is in the file; exit 1 and a line if it is not
mptcp-rx PORT       one connection to standard output, over MPTCP
mptcp-tx HOST PORT  standard input to one connection, over MPTCP; the kernel adds the paths
"""

import os
import socket
import sys
import time

PIECE_BYTES = 1 << 18
TURN_S = 0.005  # how often a slow source writes
IPPROTO_MPTCP = 262


def write_all(fd: int, data: bytes) -> None:
    """However little the pipe takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def source(path: str, rate: float) -> None:
    """A source that is late makes up for it, as something that records does; but it does not run ahead."""
    begin, written = time.monotonic(), 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(min(PIECE_BYTES, int(rate * TURN_S)) if rate else PIECE_BYTES):
            write_all(1, piece)
            written += len(piece)
            if rate:
                time.sleep(max(0.0, begin + written / rate - time.monotonic()))


def check(path: str) -> None:
    """Ends the program with a line that says where the stream went wrong."""
    at = 0
    with open(path, "rb", buffering=0) as file:
        while piece := os.read(0, PIECE_BYTES):
            expected = b""
            while len(expected) < len(piece) and (more := file.read(len(piece) - len(expected))):
                expected += more
            if piece != expected:
                raise SystemExit(f"corrupted: not what was sent, between bytes {at} and {at + len(piece)}")
            at += len(piece)
        if file.read(1):
            raise SystemExit(f"short: it ended after {at} of {os.fstat(file.fileno()).st_size} bytes")


def mptcp_rx(port: int) -> None:
    """The listening socket stays open: without it, further paths of the connection are refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port))
        server.listen()
        with server.accept()[0] as connection:
            while piece := connection.recv(PIECE_BYTES):
                write_all(1, piece)


def mptcp_tx(host: str, port: int) -> None:
    """Waits until the other side has closed, too: then it has everything."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as connection:
        connection.connect((host, port))
        while piece := os.read(0, PIECE_BYTES):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def main(words: list[str]) -> None:
    """The command line."""
    match words:
        case ["source", path, rate]:
            source(path, float(rate))
        case ["check", path]:
            check(path)
        case ["mptcp-rx", port]:
            mptcp_rx(int(port))
        case ["mptcp-tx", host, port]:
            mptcp_tx(host, int(port))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
