"""From what was measured on the way to a receiver to what should be said on the command line.

Legs: the fewest that are nearly as fast as the fastest number tried. A number is only recommended where
the network decides: legs help neither a slow output nor a busy core.
"""

from dataclasses import dataclass

from viamillipede.config import MIB, MS_US, S_US, THREADS_AUTO_MAX, WINDOW_BYTES_DEFAULT, WINDOW_BYTES_MAX
from viamillipede.doctor.checks import BUFFER_BYTES_ADVISED
from viamillipede.doctor.words import format_bits, plural
from viamillipede.units import format_duration_us, spell_size

NEARLY = 0.9  # of the fastest is as good
NEARLY_AT_AN_END = (
    0.75  # ... where one of the two ends decides, and not the network: it varies more from second to second
)
STILL_GROWING = 1.15  # twice as many legs bring so much more: it does not end there
MOSTLY = 0.5
MUCH = 0.4  # of the time: that is what it waited for
QUEUE_PERCENT = 15  # that much longer under load is a round trip when the road is full and queues
JITTER_US = 2 * MS_US
LOSSY = 0.001  # a thousandth of the packets sent again
LINK_FULL = 0.85  # of the interface's speed; the rest is headers
WINDOW_PART = 4  # a full window holds up what is under way if that is more than this part of it
PACKET_BYTES_MAX = 65535  # of IPv4; the loopback interface says one more
CORE_HERE, CORE_THERE, OUTPUT = "a core here", "a core there", "rx's output"
_DEFAULT = "threads auto, the default"
SLACK = 2  # the window should hold so many times what is on its way


@dataclass(frozen=True, slots=True)
class Step:
    """So many legs for a second or two. Shares are of the time unless said otherwise; None: the kernel does not tell.

    rate: bytes per second that the receiver's output took. lost_share: of the packets, sent again. rtt_us: under
    this load, 0 unknown. core_share, rx_core_share, output_share: the stream waited for a core here, for one there,
    for the receiver's output. window_share: the whole window was in use. send_buffer_share, receive_buffer_share:
    legs were held up because a buffer was full, here or there.
    """

    legs: int
    rate: int
    lost_share: float | None
    rtt_us: int
    core_share: float
    rx_core_share: float
    output_share: float
    window_share: float
    send_buffer_share: float | None
    receive_buffer_share: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """The way to a receiver. connects_us: round trips of idle connects, sorted. 0 and "": unknown."""

    address: str
    connects_us: tuple[int, ...]
    mss: int
    path_mtu: int
    interface: str
    interface_mtu: int
    interface_mbit: int
    congestion: str
    bbr: bool  # the legs can have it
    window_bytes: int  # the smaller one of both sides'
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do and why, and the commands or words that do it."""

    text: str
    commands: tuple[str, ...] = ()


def verdict(step: Step, measured: Measured) -> str:
    """What kept it from being faster, in a few words."""
    if at_an_end(step):
        ends = {CORE_HERE: step.core_share, CORE_THERE: step.rx_core_share, OUTPUT: step.output_share}
        return max(ends, key=lambda end: ends[end])
    if _window_limits(step, measured):
        return "the window"
    if _buffer_limits(step, step.send_buffer_share, measured):
        return "send buffers"
    if _buffer_limits(step, step.receive_buffer_share, measured):
        return "receive buffers"
    return "the network"


def _trip_us(measured: Measured) -> int:
    return measured.connects_us[0] if measured.connects_us else 0


def _queue(step: Step, measured: Measured) -> int:
    """By how many percent the load makes the round trip longer."""
    trip_us = _trip_us(measured)
    return 100 * max(0, step.rtt_us - trip_us - JITTER_US) // trip_us if trip_us else 0


def _window_limits(step: Step, measured: Measured) -> bool:
    """It was full, and not because it waits at the receiver: that would take no round trips."""
    under_way = step.rate * step.rtt_us // S_US
    return not at_an_end(step) and step.window_share >= MUCH and WINDOW_PART * under_way >= measured.window_bytes


def _buffer_limits(step: Step, share: float | None, measured: Measured) -> bool:
    """It was full, and not because the road is full and queues."""
    return share is not None and share >= MUCH and _queue(step, measured) < QUEUE_PERCENT


def at_an_end(step: Step) -> bool:
    """One of the two ends decides, and not the network between them."""
    return step.core_share + step.rx_core_share + step.output_share >= MOSTLY


def recommend(measured: Measured) -> list[Advice]:
    """What to say and to do, the most important first; there is always something about the number of legs."""
    if not measured.steps:
        return []
    best = max(measured.steps, key=lambda step: step.rate)
    found = [_end(measured, best), _legs(measured, best), _losses(measured), _window(measured, best)]
    found += [_send_buffers(measured), _receive_buffers(measured), _packets(measured), _link(measured, best)]
    return [each for each in found if each is not None]


def _end(measured: Measured, best: Step) -> Advice | None:
    if not at_an_end(best):
        return None
    end = verdict(best, measured)
    help_it = {
        CORE_HERE: "a faster processor here would help, more legs would not",
        CORE_THERE: "a faster processor there would help, more legs would not",
        OUTPUT: "unless that is /dev/null, these figures say little about the network",
    }
    return Advice(f"{format_bits(best.rate)} is what {end} can do: {help_it[end]}")


def _legs(measured: Measured, best: Step) -> Advice:
    steps = measured.steps
    share = NEARLY_AT_AN_END if at_an_end(best) else NEARLY
    enough = next(step for step in steps if step.rate >= share * best.rate)
    before = [step for step in steps if step.legs < enough.legs]
    best_known = f"{plural(enough.legs, 'leg')} bring{'s' if enough.legs == 1 else ''} {format_bits(enough.rate)}"
    if not before:
        return Advice(f"{_DEFAULT}, or threads {enough.legs}: {best_known}, more bring hardly more")
    text = f"{best_known}, {before[-1].legs} only {format_bits(before[-1].rate)}"
    if enough is not steps[-1] or enough.rate < STILL_GROWING * before[-1].rate:
        return Advice(f"{_DEFAULT}, or threads {enough.legs}: {text}, and more bring hardly more")
    if enough.legs >= THREADS_AUTO_MAX:
        return Advice(f"threads {2 * enough.legs} or more: {text}; auto, the default, stops at {THREADS_AUTO_MAX}")
    return Advice(f"{_DEFAULT}, or threads {2 * enough.legs} or more: {text}, and still more would help")


def _losses(measured: Measured) -> Advice | None:
    lossy = [step for step in measured.steps if _queue(step, measured) < QUEUE_PERCENT]  # else the queue overflows
    worst = max((step.lost_share or 0.0 for step in lossy), default=0.0)
    if worst < LOSSY or measured.congestion == "bbr":
        return None
    slows = f"{measured.congestion or 'the congestion control'} slows down for each loss"
    text = f"up to {100 * worst:.2g} % of the packets were sent again, and {slows}"
    if measured.bbr:
        return Advice(f"congestion bbr on tx: {text}")
    return Advice(f"{text}; congestion bbr does not, once this host has loaded it:", ("modprobe tcp_bbr",))


def _window(measured: Measured, best: Step) -> Advice | None:
    trip_us = _trip_us(measured)
    needed = SLACK * best.rate * trip_us // S_US
    if _window_limits(best, measured):
        needed = max(needed, 2 * measured.window_bytes)
        why = f"all of it was on its way {100 * best.window_share:.0f} % of the time"
    else:
        why = f"{format_bits(best.rate)} times {format_duration_us(trip_us)}, twice"
    least = min(WINDOW_BYTES_DEFAULT, measured.window_bytes)
    if needed <= least:
        return None
    window = min(WINDOW_BYTES_MAX, max(MIB, 1 << (needed - 1).bit_length()))
    return Advice(f"window {spell_size(window)} on both sides: {why}")


def _send_buffers(measured: Measured) -> Advice | None:
    held_up = [step for step in measured.steps if verdict(step, measured) == "send buffers"]
    if not held_up:
        return None
    text = f"legs, {held_up[0].legs} for one, were held up by their send buffers; on this host:"
    return Advice(text, (f"sysctl -w net.ipv4.tcp_wmem='4096 16384 {BUFFER_BYTES_ADVISED}'",))


def _receive_buffers(measured: Measured) -> Advice | None:
    held_up = [step for step in measured.steps if verdict(step, measured) == "receive buffers"]
    if not held_up:
        return None
    text = f"legs, {held_up[0].legs} for one, were held up by rx's receive buffers; on the receiver's host:"
    return Advice(text, (f"sysctl -w net.ipv4.tcp_rmem='4096 131072 {BUFFER_BYTES_ADVISED}'",))


def _packets(measured: Measured) -> Advice | None:
    if not measured.path_mtu or measured.path_mtu >= min(measured.interface_mtu, PACKET_BYTES_MAX):
        return None
    return Advice(
        f"something on the way takes packets of {measured.path_mtu} bytes, {measured.interface} sends up to "
        f"{measured.interface_mtu}: a tunnel, or a link whose MTU is smaller"
    )


def _link(measured: Measured, best: Step) -> Advice | None:
    full = measured.interface_mbit * 125_000
    if not full or best.rate < LINK_FULL * full:
        return None
    return Advice(f"{measured.interface} is full: {format_bits(best.rate)} of its {measured.interface_mbit} Mbit/s")
