"""Every limit and every default, each with its unit, and what the user may set.

The relations between limits are asserted at import, so a changed number cannot break another one
unnoticed. Times are integers of microseconds, sizes integers of bytes; names end in the unit.
"""

import re
from dataclasses import dataclass
from typing import NoReturn

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MS_US, S_US = 1_000, 1_000_000

# What a user may set, and its default. ---------------------------------------------------------
THREADS_AUTO = 0  # the tuner decides, for each address
THREADS_AUTO_MAX = 64  # ... but never on more legs to one address
THREADS_MAX = 1024
LIMIT_BYTES_MIN = 1 * KIB  # per second; less would starve heartbeats of sense
LIMIT_BYTES_MAX = 1 << 40
WEIGHT_MAX = 1000
VERBOSE_DEFAULT = 1
VERBOSE_MAX = 20
WINDOW_BYTES_DEFAULT = 64 * MIB
WINDOW_BYTES_MIN = 64 * KIB
WINDOW_BYTES_MAX = 64 * GIB
FRAME_BYTES_DEFAULT = 1 * MIB
FRAME_BYTES_MIN = 1 * KIB
FRAME_BYTES_MAX = 16 * MIB
OUTAGE_US_DEFAULT = 15 * 60 * S_US
REGROUP_US_DEFAULT = 10 * S_US
TX_WAIT_US_DEFAULT = 60 * S_US
DIRECT_WAIT_US_DEFAULT = 20 * S_US  # of `to` and `from`: the other side is known to listen
CHECKPHRASE_BYTES = 4
KEY_BYTES = 32
KEY_PREFIX = "viamillipede-key-1:"  # of its text
PHRASE_CHARACTERS_MIN = 8  # after normalisation
SECRET_FILE_BYTES_MAX = 4 * KIB  # of a file with a key or a phrase
NAME_BYTES_MAX = 64
NAME = re.compile(f"[A-Za-z0-9_@:+][A-Za-z0-9_@:+.-]{{0,{NAME_BYTES_MAX - 1}}}")  # safe in file names and commands
STREAMS_MAX = 256  # that an rx that keeps on serves at a time
INTERVAL_US_DEFAULT = 1 * S_US  # between two lines of progress
INTERVAL_US_MIN = 100 * MS_US
DIGESTS = ("auto", "xxh3", "sha256")
CHAOS_KINDS = ("close", "reset", "stall", "truncate", "corrupt", "all")

# The window. -----------------------------------------------------------------------------------
WINDOW_BYTES_START = (
    4 * MIB
)  # in use at first, to stay in the cache; doubles up to the user's window when it is what limits
WINDOW_STALL_US = 25 * MS_US  # a full window that stops idle legs for this long ...
WINDOW_STALL_PERIOD_US = 100 * MS_US  # ... in this time is too small; a busy machine alone stops them for less

# Timing. ---------------------------------------------------------------------------------------
TICK_US = 100 * MS_US  # how often both sides look at their deadlines
HEARTBEAT_US = 500 * MS_US  # rx says on every leg that it is alive, tx on every leg that has nothing to send
LEG_DOUBTED_US = 1 * S_US  # tx sends what a leg carries on others too when rx has been silent on it for this long
LEG_SILENT_US = 3 * S_US  # tx gives up a leg on which rx has been silent for this long
LEG_STUCK_US = 5 * S_US  # tx replaces a leg that is alive but moves nothing it was given
RX_SILENT_US = 10 * S_US  # rx gives up a leg that should bring something and does not, not even a heartbeat
USER_TIMEOUT_US = 10 * S_US  # rx's kernel gives up a leg whose heartbeats are not acknowledged
DIAL_AGAIN_US = 300 * MS_US  # a connection that has not come about by then is tried again beside the first try
DIAL_AGAIN_LASTS_US = 3 * S_US  # how long each of these further tries may take
RTO_US_MAX = 1 * S_US  # the kernel tries again at least so often, where it can be told
ANSWER_US = 3 * S_US  # ... and one that has not been answered by then is given up, once an answer was had before
GREETING_US = 10 * S_US  # a connection that has not greeted by then is closed
CONNECT_US = 10 * S_US  # an address that has not answered by then did not answer
UNHEARD_US = CONNECT_US + GREETING_US + 5 * S_US  # until then tx, whose answer was lost, has tried once more
USEFUL_US = 1 * S_US  # a leg that lived so long, or brought a frame over, was of use: no back-off after it
BACKOFF_US_MIN = 50 * MS_US
BACKOFF_US_MAX = 3 * S_US
BACKOFF_UNREACHED_US_MAX = 400 * MS_US  # where no host answered at all
FILL_US = 4 * MS_US  # how long a partly filled frame waits for more while others are in flight
ACK_DELAY_US = 2 * MS_US  # how long rx collects what it acknowledges
ACK_BYTES = 2 * MIB  # ... or until this much has arrived
ASIDE_US = 20 * MS_US  # how long a frame that is not due waits in its socket while the output starves
CALM_FRAMES = 32  # so many frames in a row read aside for nothing, and rx leaves frames in their sockets again
BLOCKED_US = 10 * MS_US  # output blocked for this long: rx says so, or tx would think its frames late
LATE_US_MIN = 100 * MS_US  # a frame is never called late, and hedged, before this
FAREWELL_US = 3 * S_US  # how long a failing side tries to tell the other one why
BROKEN_US = 1 * S_US  # how long what a broken leg has brought to rx may still be read
LEGS_AGAIN_US = 2 * S_US  # how often a listening tx repeats how many legs rx is to dial
COMMAND_END_US = 5 * S_US  # how long a command has to end after it was told to
WAITS_US = 1 * S_US  # how often tx tells rx where the time goes
LINGER_US = 10 * S_US  # how long a successful rx stays to repeat that it was successful

# Limits on what the wire may claim. ------------------------------------------------------------
ACK_RANGES_MAX = 256
REASON_BYTES_MAX = 2048
DIGEST_BYTES_MAX = 64
STRANGERS_MAX = 1024  # connections that have not greeted yet, at a time
FRAMES_MAX = 16384  # frames that may be on their way at a time: bounds the bookkeeping of small ones
LEGS_MAX = 2 * THREADS_MAX  # leg numbers lie below
RANKS_MAX = 64  # paths of an rx that dials
DIAL_FIRST = 8  # connections to an address that are set up at once before anything is known of it
SETUPS_MAX = 16  # connections to an address that are being set up at a time
COPIES_MAX = 3  # legs that may carry one frame at the same time

assert WINDOW_BYTES_MIN <= WINDOW_BYTES_START <= WINDOW_BYTES_DEFAULT <= WINDOW_BYTES_MAX
assert FRAME_BYTES_MIN <= FRAME_BYTES_DEFAULT <= FRAME_BYTES_MAX
assert WINDOW_BYTES_START >= 4 * FRAME_BYTES_DEFAULT, "a few frames must fit, or legs wait for acknowledgements"
assert 2 * HEARTBEAT_US <= LEG_DOUBTED_US < LEG_SILENT_US < LEG_STUCK_US < RX_SILENT_US, "late is not dead"
assert ACK_DELAY_US + BLOCKED_US < LATE_US_MIN and FILL_US < LATE_US_MIN and ASIDE_US < LATE_US_MIN


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Secret:
    """Bytes that are never shown, neither by repr nor by str, and never pickled. Compared in constant time."""

    data: bytes

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        import hmac  # only who has a secret needs it

        return hmac.compare_digest(self.data, other.data)

    def __hash__(self) -> int:
        return hash(self.data)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled, and not copied")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the other side can be reached: a name or a literal address, and a TCP port; and on which terms.

    via: the source address, or the interface, of what goes there. weight: its share beside its weighted
    neighbours, 0: none, it is filled before what follows it. limit_bytes: per second, 0: none.
    """

    host: str
    port: int
    via: str | None = None
    weight: int = 0
    limit_bytes: int = 0

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Config:
    """What the words of the command line say, for both roles; durations in microseconds."""

    checksum: bool = False
    checkphrase: bytes = bytes(CHECKPHRASE_BYTES)  # all zero: none
    verbose: int = VERBOSE_DEFAULT
    window_bytes: int = WINDOW_BYTES_DEFAULT
    bind: str | None = None
    command: tuple[str, ...] = ()  # tx: whose output is the stream; rx: whose input; none: a standard descriptor
    digest: str = "auto"  # of the whole stream, one of DIGESTS
    congestion: str = ""  # the algorithm of the legs; "": the system's
    addresses: tuple[Address, ...] = ()  # to dial, in order of preference; none: listen on `port`
    port: int = 0
    outage_us: int = OUTAGE_US_DEFAULT
    regroup_us: int = REGROUP_US_DEFAULT
    size_bytes: int = 0  # how long the stream is expected to be; 0: not said
    interval_us: int = 0  # between two lines of progress; 0: not said
    progress: bool = False  # also where standard error is no terminal
    dashboard: bool = False
    json: bool = False
    metrics: Address | None = None  # where to serve them
    log: str = ""  # the file that what is said goes to as well
    syslog: bool = False
    key: Secret | None = None  # KEY_BYTES; or a phrase, or neither: nothing is encrypted then
    phrase: Secret | None = None


@dataclass(frozen=True, slots=True)
class TxConfig(Config):
    """The transmitter's words."""

    name: str = ""  # of the stream, for rx
    threads: int = THREADS_AUTO
    limit_bytes: int = 0  # per second, of all addresses together; 0: none
    frame_bytes: int = FRAME_BYTES_DEFAULT
    wait_us: int = TX_WAIT_US_DEFAULT
    chaos: int = 0  # socket operations between two faults; 0: none
    chaos_kind: str = "close"


@dataclass(frozen=True, slots=True)
class RxConfig(Config):
    """The receiver's words. `wait_us` None: wait for the first contact for ever."""

    wait_us: int | None = None
    names: str | None = None  # the pattern that a stream's name must match; None: any
    keep: bool = False  # serve one stream after another
    streams: int = 1  # at a time
    force: bool = False  # write to a terminal all the same


@dataclass(frozen=True, slots=True)
class DoctorConfig:
    """The doctor's words. `address`: of an rx to measure against."""

    address: Address | None = None
    json: bool = False
    checkphrase: bytes = bytes(CHECKPHRASE_BYTES)
    bind: str | None = None
    wait_us: int = TX_WAIT_US_DEFAULT
    verbose: int = VERBOSE_DEFAULT
    key: Secret | None = None
    phrase: Secret | None = None
