"""Frames of a stream of equal frames, as they cross a leg, and what rx has to say about them."""

import random

from tests.protocol.drive import Receiver, said
from viamillipede.config import KIB
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.waiting_legs import RxLeg
from viamillipede.protocol.wire import Ack, Kind, encode_control

DATA = random.Random(4).randbytes(64 * KIB)
SIZE = 100  # bytes in each frame of these tests


def data(seq: int, size: int = SIZE) -> bytes:
    """Frame `seq` of a stream of frames of the same length, as it crosses a leg."""
    payload = DATA[seq * size : (seq + 1) * size]
    return encode_control(Kind.DATA, seq, seq * size, payload) if size <= 4096 else big(seq, payload)


def big(seq: int, payload: bytes) -> bytes:
    """A frame that is larger than a control message may be."""
    return Frame(Kind.DATA, seq, seq * len(payload), len(payload), 0).header + payload


def end(seq: int) -> bytes:
    """The end of a stream of `seq` such frames."""
    return encode_control(Kind.END, seq, seq * SIZE)


def outbox(leg: RxLeg) -> list[tuple[Kind, Ack | bytes]]:
    """What the leg is to tell tx."""
    found = [(header.kind, what) for header, what in said(b"".join(leg.outbox))]
    leg.outbox.clear()
    return found


def told(receiver: Receiver, now_us: int) -> Ack | None:
    """The acknowledgement that is due."""
    due = receiver.rx.next_ack(now_us)
    if due is None:
        return None
    ((_, ack),) = said(due[1])
    assert isinstance(ack, Ack) and due[0].key in receiver.rx.legs
    return ack
