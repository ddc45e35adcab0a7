"""Does with bytes in memory what the shell does with sockets, so that a test can drive one session by hand."""

from viamillipede.config import KIB, MIB, Address, RxConfig, TxConfig
from viamillipede.protocol.control import ControlDecoder
from viamillipede.protocol.rx_session import Action, RxSession
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.tx_session import TxSession
from viamillipede.protocol.waiting_legs import RxLeg
from viamillipede.protocol.wire import (
    FROM_RX,
    Ack,
    Answer,
    Greeting,
    Header,
    Kind,
    Verdict,
    Waiting,
    decode_ack_untrusted,
    decode_greeting_untrusted,
    encode_control,
)

SESSION = bytes(range(1, 17))
RECEIVER = b"receiver"
HOSTS = (Address("a", 1), Address("b", 2))


def greeting(
    number: int = 0,
    *,
    session: bytes = SESSION,
    receiver: bytes = bytes(8),
    checkphrase: bytes = bytes(4),
    features: int = 0,
    window_bytes: int = 64 * MIB,
    name: str = "",
) -> Greeting:
    """A greeting that rx accepts, unless it is told otherwise."""
    return Greeting(session, number, receiver, checkphrase, features, window_bytes, min(MIB, window_bytes), name)


class Receiver:
    """An RxSession with its sockets and its output. `open_bytes`: what the output still takes; None: everything."""

    def __init__(self, config: RxConfig | None = None, direct: bool = True) -> None:
        self.config = config or RxConfig(window_bytes=64 * KIB)
        self.rx = RxSession(self.config, RECEIVER, direct, 0)
        self.output = bytearray()
        self.sockets: dict[int, bytearray] = {}
        self.open_bytes: int | None = None
        self.piece_bytes = 1 << 30  # how much a socket hands out at once
        self.actions: list[Action] = []

    def leg(self, number: int = 0, now_us: int = 0) -> RxLeg:
        """A new leg that was accepted, with nothing left to tell it."""
        assert self.rx.on_greeting(greeting(number, features=int(self.config.checksum))).verdict is Verdict.ACCEPTED
        leg = self.rx.on_leg_up(len(self.sockets), number, now_us)
        self.sockets[leg.key] = bytearray()
        leg.outbox.clear()
        return leg

    def feed(self, leg: RxLeg, data: bytes, now_us: int = 0) -> None:
        """Bytes arrive in the leg's socket; the receiver does what it can."""
        self.sockets[leg.key] += data
        self.run(leg, now_us)
        self.settle(now_us)

    def run(self, leg: RxLeg, now_us: int) -> None:
        """Steps of one leg until its socket is empty, or it must wait, or the output takes nothing more."""
        socket = self.sockets[leg.key]
        while socket:
            action, what = self.rx.step(leg, now_us)
            self.actions.append(action)
            if action is Action.WAIT:
                return
            wanted = len(what) if isinstance(what, memoryview) else min(what, self._room(what))
            count = min(wanted, self.piece_bytes, len(socket))
            if not count:
                self.rx.on_output_blocked(now_us)
                return
            assert wanted, "the session asks for nothing"
            if isinstance(what, memoryview):
                what[:count] = socket[:count]
            else:
                self._take(socket[:count])
            del socket[:count]
            self.rx.advance_untrusted(leg, count, now_us)
            self.rx.check()

    def settle(self, now_us: int) -> None:
        """Write what may be written and run the legs that need not wait, until nothing moves."""
        while True:
            self.flush(now_us)
            leg = self.rx.take_runnable()
            if leg is None:
                return
            self.run(leg, now_us)

    def flush(self, now_us: int) -> None:
        """Memory to the output, as far as that takes it."""
        while (view := self.rx.reassembly.output_view()) is not None:
            count = min(len(view), self._room(len(view)))
            if not count:
                self.rx.on_output_blocked(now_us)
                return
            self._take(view[:count])
            self.rx.on_written(count, now_us)
            self.rx.check()

    def open(self, now_us: int, open_bytes: int | None = None) -> None:
        """The output takes bytes again; legs that stand before it go on."""
        self.open_bytes = open_bytes
        self.rx.on_output_open(now_us)
        for leg in list(self.rx.legs.values()):
            self.run(leg, now_us)
        self.settle(now_us)

    def lose(self, leg: RxLeg, now_us: int = 0, closed_by_peer: bool = True) -> None:
        """The leg is gone, with what was left in its socket."""
        self.sockets[leg.key].clear()
        self.rx.on_leg_lost(leg, closed_by_peer, now_us)
        self.rx.check()

    def timer(self, now_us: int) -> None:
        """Time passes."""
        self.rx.on_timer(now_us)
        self.settle(now_us)
        self.rx.check()

    def _room(self, wanted: int) -> int:
        return wanted if self.open_bytes is None else self.open_bytes

    def _take(self, data: bytes | bytearray | memoryview) -> None:
        self.output += data
        if self.rx.digest.own is not None:
            self.rx.digest.own.update(memoryview(data))
        if self.open_bytes is not None:
            self.open_bytes -= len(data)


class Sender:
    """A TxSession with its legs, whose sockets take everything at once unless told otherwise.

    `hoarding`: the legs whose next host takes what they are given and keeps it; what the others have
    been given waits in our own kernel.
    """

    def __init__(self, config: TxConfig | None = None, now_us: int = 0) -> None:
        self.config = config or TxConfig(addresses=HOSTS, threads=8, window_bytes=64 * KIB, frame_bytes=1 * KIB)
        self.tx = TxSession(self.config, SESSION, now_us)
        self.hoarding: set[int] = set()

    def up(self, leg: int, now_us: int = 0, *, rank: int = 0, window_bytes: int = 64 * MIB, features: int = 0) -> None:
        """rx accepts the leg, and its socket can take a frame."""
        features |= int(self.tx.checksum)  # what was asked for is granted
        answer = Answer(Verdict.ACCEPTED, features, RECEIVER, window_bytes)
        assert self.tx.on_answer(leg, rank, answer, now_us) == ""
        self.tx.on_idle(leg)

    def input(self, data: bytes, now_us: int = 0) -> int:
        """As much of `data` as the window takes; returns how much."""
        taken = 0
        while taken < len(data) and (view := self.tx.window.input_view()) is not None:
            count = min(len(view), len(data) - taken)
            view[:count] = data[taken : taken + count]
            if self.tx.digest.own is not None:
                self.tx.digest.own.update(view[:count])
            self.tx.window.on_input(count, now_us)
            taken += count
        return taken

    def fill(self, now_us: int = 0) -> None:
        """Input until the window is full; frames are cut on the way, and sent."""
        while self.tx.window.room_bytes():
            self.input(bytes(self.tx.window.room_bytes()), now_us)
            assert self.sent(now_us), "nobody takes a frame"

    def sent(self, now_us: int = 0) -> list[tuple[int, Frame]]:
        """Every assignment there is now; each socket takes its frame at once."""
        made = []
        while (assignment := self.tx.next_assignment(now_us)) is not None:
            leg, frame = assignment
            made.append(assignment)
            self.tx.on_progress(leg, len(frame.header) + frame.length, now_us)
            if self.tx.legs[leg].hoards():
                self.tx.on_sample(leg, 0 if leg in self.hoarding else self.tx.legs[leg].backlog_bytes(), now_us)
            self.tx.on_idle(leg)
            self.tx.check()
        return made

    def ack(
        self,
        leg: int,
        arrived_next: int,
        written: int,
        now_us: int = 0,
        waiting: Waiting = Waiting.FRAME,
        ranges: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """rx acknowledges on `leg`."""
        ack = Ack(arrived_next, written, waiting, arrived_next, ranges)
        self.tx.on_bytes_untrusted(leg, ack.encode(), now_us)
        self.tx.check()

    def say(self, leg: int, kind: Kind, seq: int = 0, offset: int = 0, now_us: int = 0) -> None:
        """rx says something else on `leg`."""
        self.tx.on_bytes_untrusted(leg, encode_control(kind, seq, offset), now_us)
        self.tx.check()


def compare(sender: Sender, receiver: Receiver, leg: RxLeg, now_us: int = 0) -> None:
    """All was written: rx tells its digest on `leg`, and tx answers there. IntegrityError of either."""
    receiver.rx.ask_digest()
    sender.tx.on_bytes_untrusted(leg.number, b"".join(leg.outbox), now_us)
    leg.outbox.clear()
    if (answer := sender.tx.digest.answer()) is not None:
        receiver.feed(leg, answer, now_us)
        sender.tx.digest.check()


def message(sender: Sender, frame: Frame) -> bytes:
    """The frame as it crosses a leg."""
    return frame.header + bytes(sender.tx.window.payload(frame))


def said(data: bytes) -> list[tuple[Header, Ack | bytes]]:
    """What rx sent, decoded."""
    return [
        (header, decode_ack_untrusted(header, payload) if header.kind is Kind.ACK else payload)
        for header, payload in ControlDecoder(FROM_RX).feed_untrusted(data)
    ]


def connect(sender: Sender, receiver: Receiver, number: int, now_us: int = 0, rank: int = 0) -> RxLeg:
    """A leg between the two, greeting and answer included."""
    met = decode_greeting_untrusted(sender.tx.greeting(number))
    answer = receiver.rx.on_greeting(met)
    assert sender.tx.on_answer(number, rank, answer, now_us) == ""
    leg = receiver.rx.on_leg_up(len(receiver.sockets), number, now_us)
    receiver.sockets[leg.key] = bytearray()
    sender.tx.on_idle(number)
    return leg
