"""From what was measured on the way to a receiver to what should be said on the command line.

Legs: the fewest that are nearly as fast as the fastest number tried. A number is only recommended where
the network decides: legs help neither a slow output nor a busy core.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from viamillipede.config import MIB, S_US, THREADS_AUTO_MAX, WINDOW_BYTES_DEFAULT, WINDOW_BYTES_MAX
from viamillipede.doctor.checks import BUFFER_BYTES_ADVISED
from viamillipede.doctor.words import format_bits, plural
from viamillipede.units import format_duration_us, spell_size

NEARLY = 0.9  # of the fastest is as good
NEARLY_BUSY = 0.75  # ... where a core decides: on a fast network more legs only shift work between the two sides
STILL_GROWING = 1.15  # twice as many legs bring so much more: it does not end there
MUCH = 0.4  # of the time: that is what it waited for
CORE_BUSY = 0.9
BUFFER_FULL = 0.2  # of the time that a leg had something to send
LOSSY = 0.001  # a thousandth of the packets sent again: losses, or a queue that overflows
LINK_FULL = 0.85  # of the interface's speed; the rest is headers
SLACK = 2  # the window should hold so many times what is on its way


@dataclass(frozen=True, slots=True)
class Step:
    """So many legs for a second or two. Shares are of the time unless said otherwise; None: the kernel does not tell.

    rate: bytes per second that the receiver's output took. lost_share: of the packets, sent again. rtt_us: under
    this load, 0 unknown. cpu_share: of a core, by this process. output_share: the receiver waited for its output.
    window_share: the whole window was on its way. send_buffer_share, receive_buffer_share: the kernel held legs up
    because a buffer was full, here or there.
    """

    legs: int
    rate: int
    lost_share: float | None
    rtt_us: int
    cpu_share: float
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


def verdict(step: Step) -> str:
    """What kept it from being faster, in a few words."""
    if step.output_share >= MUCH:
        return "rx's output"
    if step.window_share >= MUCH:
        return "the window"
    if (step.send_buffer_share or 0) >= BUFFER_FULL:
        return "send buffers"
    if (step.receive_buffer_share or 0) >= BUFFER_FULL:
        return "receive buffers"
    return "a core here" if step.cpu_share >= CORE_BUSY else "network, or rx"


def recommend(measured: Measured) -> list[Advice]:
    """What to say and to do, the most important first; there is always something about the number of legs."""
    if not measured.steps:
        return []
    best = max(measured.steps, key=lambda step: step.rate)
    found = [_output(best), _legs(measured, best), _losses(measured), _window(measured, best)]
    found += [_send_buffers(measured), _receive_buffers(measured), _packets(measured), _link(measured, best)]
    return [each for each in found if each is not None]


def _output(best: Step) -> Advice | None:
    if best.output_share < MUCH:
        return None
    return Advice(
        f"the receiver waited for its output {100 * best.output_share:.0f} % of the time: these figures say little "
        "about the network. Let its output be /dev/null while this measures"
    )


def _legs(measured: Measured, best: Step) -> Advice:
    steps = measured.steps
    busy = best.cpu_share >= CORE_BUSY
    share = NEARLY_BUSY if busy else NEARLY
    enough = next(step for step in steps if step.rate >= share * best.rate)
    before = [step for step in steps if step.legs < enough.legs]
    rate = format_bits(enough.rate)
    if enough.output_share >= MUCH:
        return Advice("threads auto, the default: how many legs the network needs could not be measured")
    if busy and enough.legs == steps[0].legs:
        return Advice(f"threads auto, the default, or {enough.legs}: {rate} are what a core of this host can do")
    if len(steps) == 1 or enough.legs == steps[0].legs:
        return Advice(f"threads auto, the default, or {enough.legs}: {rate}, and more legs bring hardly more")
    text = f"{plural(enough.legs, 'leg')} bring {rate}, {before[-1].legs} only {format_bits(before[-1].rate)}"
    last = steps[-1]
    grows = len(steps) > 1 and last is enough and last.rate >= STILL_GROWING * steps[-2].rate
    if grows and last.legs >= THREADS_AUTO_MAX:
        return Advice(f"threads {2 * last.legs} or more: {text}; auto, the default, stops at {THREADS_AUTO_MAX}")
    if grows:
        return Advice(f"threads auto, the default, or {2 * last.legs} and more: {text}, and still more would help")
    return Advice(f"threads auto, the default, or {enough.legs}: {text}, and more than {enough.legs} bring hardly more")


def _losses(measured: Measured) -> Advice | None:
    shares = [step.lost_share for step in measured.steps if step.lost_share is not None]
    worst = max(shares, default=0.0)
    if worst < LOSSY or measured.congestion == "bbr":
        return None
    slows = f"{measured.congestion or 'the congestion control'} slows down for each loss"
    text = f"up to {100 * worst:.2g} % of the packets were sent again, and {slows}"
    if measured.bbr:
        return Advice(f"congestion bbr on tx: {text}")
    return Advice(f"{text}; congestion bbr does not, once this host has loaded it:", ("modprobe tcp_bbr",))


def _window(measured: Measured, best: Step) -> Advice | None:
    trip_us = measured.connects_us[0] if measured.connects_us else 0
    needed = SLACK * best.rate * trip_us // S_US
    if best.window_share >= MUCH and best.output_share < MUCH:
        needed = max(needed, 2 * measured.window_bytes)
        why = f"all of it was on its way {100 * best.window_share:.0f} % of the time"
    else:
        why = f"{format_bits(best.rate)} times {format_duration_us(trip_us)}, twice"
    least = min(WINDOW_BYTES_DEFAULT, measured.window_bytes)
    if needed <= least:
        return None
    window = min(WINDOW_BYTES_MAX, max(MIB, 1 << (needed - 1).bit_length()))
    return Advice(f"window {spell_size(window)} on both sides: {why}")


def _worst(shares: Sequence[float | None]) -> float:
    return max((share for share in shares if share is not None), default=0.0)


def _send_buffers(measured: Measured) -> Advice | None:
    share = _worst([step.send_buffer_share for step in measured.steps])
    if share < BUFFER_FULL:
        return None
    text = f"a leg was held up by its send buffer {100 * share:.0f} % of the time; on this host:"
    return Advice(text, (f"sysctl -w net.ipv4.tcp_wmem='4096 16384 {BUFFER_BYTES_ADVISED}'",))


def _receive_buffers(measured: Measured) -> Advice | None:
    steps = [step for step in measured.steps if step.output_share < MUCH]
    share = _worst([step.receive_buffer_share for step in steps])
    if share < BUFFER_FULL:
        return None
    text = f"a leg was held up by rx's receive buffer {100 * share:.0f} % of the time; on the receiver's host:"
    return Advice(text, (f"sysctl -w net.ipv4.tcp_rmem='4096 131072 {BUFFER_BYTES_ADVISED}'",))


def _packets(measured: Measured) -> Advice | None:
    if not measured.path_mtu or measured.path_mtu >= measured.interface_mtu:
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
