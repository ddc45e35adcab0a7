"""What both sessions know of the way to the other side: who is there, where it can be reached, what is dialled.

One side *dials*: it has addresses, and this decides which leg is set up where and when to give up. The
other side listens. Its paths, one at least, have the addresses of those that came, if anybody looks.
"""

from collections.abc import Mapping, Sequence

from viamillipede.config import ANSWER_US, GREETING_US, Address, Config
from viamillipede.errors import PeerLost, SessionRefused
from viamillipede.protocol.address_book import AddressBook
from viamillipede.protocol.dialling import Dialling, Leg
from viamillipede.protocol.presence import Presence
from viamillipede.protocol.wire import VERSION, Verdict

FINAL = (  # refusals that no further attempt will change
    Verdict.VERSION, Verdict.CHECKPHRASE, Verdict.ROLE, Verdict.NAME, Verdict.KEYLESS, Verdict.KEYED, Verdict.KEY,
)  # fmt: skip
UNKNOWN = Address("not-used-yet", 0)  # of a path on which nobody has come


class Contact:
    """`numbered`: the session's legs that are up, by number. `wait_us` None: for the first contact for ever."""

    name = ""  # of the stream
    role = other = opening = ""  # in words: what we are, what the other side is, and what we say first

    def __init__(self, config: Config, wait_us: int | None, numbered: Mapping[int, Leg], now_us: int) -> None:
        self.presence = Presence(wait_us, config.regroup_us, config.outage_us, now_us)
        self.dials = bool(config.addresses)
        self._sealed = config.key is not None or config.phrase is not None
        self._secret, self._no_secret = ("key", "phrase") if config.phrase is None else ("phrase", "key")
        self._numbered = numbered
        self._refused: dict[int, str] = {}  # rank -> why it refused for good
        self.book: AddressBook
        self.dialling: Dialling

    def set_out(self, addresses: Sequence[Address], targets: Sequence[int], moving: bool) -> None:
        """These are the ways to the other side, and how many legs are wanted on each; see Dialling."""
        assert not self._numbered, "a leg would lose its address"
        self.book = AddressBook(tuple(addresses))
        self.dialling = Dialling(self.book, targets, moving, scouts=self._sealed)

    def next_dial(self, now_us: int) -> tuple[int, int] | None:
        """(leg, rank) of a connection to set up now; `dialling.on_over` says that this has ended. None: not now."""
        return self.dialling.next(self._numbered, self.presence.contacted, now_us) if self.dials else None

    def answer_us(self) -> int:
        """How long an answer is waited for. After an outage a fresh attempt may be answered where this one never is."""
        return ANSWER_US if self.presence.contacted else GREETING_US

    def on_reached(self, rank: int) -> None:
        """A leg to the address is up."""
        self.presence.on_leg_up()
        self.book.on_accepted(rank)
        self._refused.pop(rank, None)

    def on_cut_off(self, rank: int, useful: bool, closed_by_peer: bool, now_us: int, jitter: float) -> None:
        """A leg to the address is lost. `useful`: it had brought something over, or lived for a while."""
        if not useful:
            self.book.on_cut(rank, now_us, jitter)
        self.presence.on_leg_lost(closed_by_peer, now_us)

    def on_of_use(self, rank: int) -> None:
        """A leg to the address is not one of those that are cut as soon as they are up."""
        self.book.on_useful(rank)
        self.presence.on_useful()

    def on_attempt_failed(
        self, rank: int, reason: str, refused: bool, now_us: int, jitter: float, reached: bool = False
    ) -> None:
        """No leg came of an attempt. `refused`: the host says that nobody listens there; `reached`: somebody does."""
        if refused and self.book.states[rank].worked:
            self.presence.on_refused()
        self.book.on_failed(rank, reason, refused or reached, now_us, jitter)

    def on_verdict(self, rank: int, verdict: Verdict) -> str:
        """Who answers there has refused us. Returns the reason; SessionRefused as below."""
        ours, from_here = self._secret, " from here" if self._secret == "key" else ""  # phrases count for all hosts
        reason = {
            Verdict.VERSION: f"the {self.other} speaks another version of the protocol than ours, {VERSION}",
            Verdict.CHECKPHRASE: f"the {self.other} has another checkphrase",
            Verdict.ROLE: f"a {self.role} listens there, as we are one; it takes a {self.other}",
            Verdict.NAME: f"the {self.other} does not take streams of the name {self.name!r}",
            Verdict.KEYLESS: f"the {self.other} has neither a key nor a phrase, and we have a {ours}; say it there too",
            Verdict.KEYED: f"the {self.other} wants a key or a phrase, and we have neither; say key FILE, or phrase",
            Verdict.KEY: f"the {self.other} has another {ours}, or a {self._no_secret}; both sides need the same",
            Verdict.LATER: f"too many have come to the {self.other}{from_here} with another {ours}",
            Verdict.UNKNOWN: f"the {self.other} does not know our stream; it may have been started anew",
            Verdict.BUSY: f"the {self.other} is busy with another stream",
        }.get(verdict, f"the {self.other} found our {self.opening} malformed")
        if verdict in FINAL:
            return self.on_refused_for_good(rank, reason)
        self.book.states[rank].refusal = reason
        return reason

    def on_refused_for_good(self, rank: int, reason: str) -> str:
        """Who answers there cannot be ours. SessionRefused if all of them cannot. Returns the reason."""
        self._refused[rank] = reason
        if self.dials and not self.presence.contacted and len(self._refused) == len(self.book.states):
            raise SessionRefused(f"{self.book.states[rank].address}: {reason}")
        return reason

    def on_another_process(self, rank: int, reason: str, final: str) -> str:
        """Not ours answers there; PeerLost, with `final`, if ours was there and cannot be anywhere else any more."""
        if not self.dials or self.presence.legs_up or not self.book.states[rank].worked:
            return self.on_refused_for_good(rank, reason)
        raise PeerLost(final)
