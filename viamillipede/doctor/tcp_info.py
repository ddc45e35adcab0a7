"""What Linux tells of a connection: struct tcp_info of linux/tcp.h, the part that helps to judge a road."""

import socket
import struct
import sys
from dataclasses import dataclass

_BYTES = 184  # up to tcpi_rwnd_limited: Linux 4.10
_AT = {"mss": 16, "path_mtu": 60, "rtt_us": 68, "sent_again": 100, "min_rtt_us": 148, "sent": 156}  # 32 bits each
_AT_LONG = {"acked_bytes": 120, "busy_us": 168, "receive_buffer_us": 176}  # 64 bits each


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """sent, sent_again: packets with data. acked_bytes: by the next host. busy_us: there was something to send.

    Of that time, receive_buffer_us: the other host's window held it up.
    """

    mss: int = 0
    path_mtu: int = 0
    rtt_us: int = 0
    min_rtt_us: int = 0
    sent: int = 0
    sent_again: int = 0
    acked_bytes: int = 0
    busy_us: int = 0
    receive_buffer_us: int = 0


def tcp_info(sock: socket.socket) -> TcpInfo | None:
    """None where the kernel does not tell, or not all of it. OSError: the connection is gone."""
    if sys.platform != "linux":  # others have a structure of their own under the same name
        return None
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(raw) < _BYTES:
        return None
    figures = {name: struct.unpack_from("=I", raw, at)[0] for name, at in _AT.items()}
    figures |= {name: struct.unpack_from("=Q", raw, at)[0] for name, at in _AT_LONG.items()}
    return TcpInfo(**figures)


def congestion_of(sock: socket.socket) -> str:
    """The algorithm of the connection; "" where it cannot be asked."""
    if not hasattr(socket, "TCP_CONGESTION"):
        return ""
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.partition(b"\0")[0].decode("ascii", "replace")
