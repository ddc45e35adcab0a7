"""rx dials: what a listening tx makes of its calls, and how rx hears how many legs are wanted.

A call names the receiver and the path. The first receiver whose call leads to a leg owns the session;
while a call is being answered nobody else can take it away. Both sides number the legs alike, since
each call says how many paths there are. tx decides how many legs there are to be on each path, and
says so in LEGS: on every leg when it has changed, and every LEGS_AGAIN_US on one, in case it was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from viamillipede.config import LEGS_AGAIN_US, LEGS_MAX, RANKS_MAX, RxConfig
from viamillipede.errors import FrameError
from viamillipede.protocol.contact import UNKNOWN, Contact
from viamillipede.protocol.dialling import Dialling
from viamillipede.protocol.wire import Call, Header, Verdict, decode_legs_untrusted, encode_legs

if TYPE_CHECKING:
    from viamillipede.protocol.waiting_legs import RxLeg


class Callers:
    """Whose calls tx takes."""

    def __init__(self, checkphrase: bytes) -> None:
        self._checkphrase = checkphrase
        self._owner: Call | None = None  # its first call
        self._open = 0  # calls that are being answered

    def on_call(self, call: Call) -> tuple[Verdict, bool]:
        """The answer, and whether a new owner has come with it; if ACCEPTED, `on_over` must follow."""
        owner = self._owner
        if call.checkphrase != self._checkphrase:
            return Verdict.CHECKPHRASE, False
        if owner is not None and owner.receiver != call.receiver:
            return Verdict.BUSY, False
        if owner is not None and owner.ranks != call.ranks:
            return Verdict.MALFORMED, False
        self._open += 1
        self._owner = owner or call
        return Verdict.ACCEPTED, owner is None

    def on_over(self, contacted: bool) -> None:
        """There is a leg now, or there is none. Without a first one the receiver does not own us."""
        self._open -= 1
        if not self._open and not contacted:
            self._owner = None


class Wishes:
    """What tx tells rx of the legs that it wants."""

    def __init__(self) -> None:
        self._number = 0
        self._told: tuple[bool, list[int]] = (False, [])
        self._told_us = 0

    def message(self, dialling: Dialling) -> bytes:
        """LEGS as it is now, for a leg that has come up."""
        wish = dialling.moving, list(dialling.targets)
        if wish != self._told:
            self._number, self._told = self._number + 1, wish
        return encode_legs(self._number, *wish)

    def due(self, dialling: Dialling, now_us: int) -> tuple[bytes, bool] | None:
        """LEGS to be said now, and whether on every leg; None: not now. To be asked every tick."""
        before = self._number
        message = self.message(dialling)
        if self._number == before and now_us - self._told_us < LEGS_AGAIN_US:
            return None
        self._told_us = now_us
        return message, self._number != before


class Caller(Contact):
    """The part of rx's session that is about dialling. Nothing of it happens when rx listens."""

    role, other, opening = "receiver", "transmitter", "call"

    def __init__(self, config: RxConfig, receiver: bytes, now_us: int) -> None:
        self.numbered: dict[int, RxLeg] = {}
        super().__init__(config, config.wait_us, self.numbered, now_us)
        self._checkphrase, self._receiver = config.checkphrase, receiver
        addresses = config.addresses or (UNKNOWN,)
        assert len(addresses) <= RANKS_MAX
        self.set_out(addresses, [1] * len(addresses), moving=False)  # until tx has said what it wants
        self._wish = 0  # the number of the latest one that was heard
        self.wished = False  # something new; whoever dials takes it back

    def call(self, leg: int, rank: int) -> bytes:
        """What to say first on a connection that we have dialled."""
        return Call(self._receiver, leg, rank, len(self.book.states), self._checkphrase).encode()

    def on_greeting_refused(self, rank: int, verdict: Verdict) -> str:
        """We have refused the greeting that our call brought. Returns why; a Failure if that is final."""
        if verdict is Verdict.NAME:
            return self.on_refused_for_good(rank, "the transmitter's stream has another name than those that are taken")
        if verdict is not Verdict.BUSY:
            return self.on_refused_for_good(rank, "the transmitter greets as none that could be ours")
        final = "the transmitter was started anew and does not have this stream"
        return self.on_another_process(rank, "another transmitter than ours answers", final)

    def on_legs_untrusted(self, header: Header, payload: memoryview) -> None:
        """LEGS has come; one that was overtaken by a later one is past. FrameError."""
        targets = decode_legs_untrusted(payload)
        dialling = self.dialling
        if not self.dials or len(targets) != len(dialling.targets) or header.offset > 1:
            raise FrameError("a wish for legs on paths that we do not have")
        if header.seq > self._wish:
            self._wish, self.wished, dialling.moving = header.seq, True, bool(header.offset)
            dialling.targets[:] = bounded(targets)


def bounded(targets: Sequence[int]) -> list[int]:
    """So many of the legs that every leg number lies below LEGS_MAX."""
    step = len(targets)
    return [min(target, (LEGS_MAX - 1 - rank) // step + 1) for rank, target in enumerate(targets)]
