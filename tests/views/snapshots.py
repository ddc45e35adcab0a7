"""Sample snapshots for the tests of views: tx and rx in the middle of a transfer, to be changed as a test needs."""

from dataclasses import replace
from typing import Any

from viamillipede.config import GIB, MIB, MS_US, S_US
from viamillipede.views.snapshot import Leg, Path, Snapshot, Waits

SESSION = "3f2a9c0187654321fedcba9876543210"
ADDRESSES = ("10.0.0.2:8834", "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:8834")
_TX_RATES = (96, 101, 88, 104, 61, 58, 0, 64)  # MiB/s, leg by leg
_TX_STATES = ("busy", "busy", "busy", "busy", "busy", "idle", "down", "busy")
_RX_STATES = ("direct", "store", "direct", "wait", "discard", "idle", "direct", "store")


def tx_leg(number: int, **changes: Any) -> Leg:
    """A busy leg of tx on the first path, with these fields changed."""
    leg = Leg(
        number=number,
        path=0,
        address=ADDRESSES[0],
        state="busy",
        moved_bytes=150 * MIB,
        rate=100 * MIB,
        rtt_us=12_300,
        retransmissions=0,
        in_flight_bytes=3 * MIB // 2,
        hedged=0,
        restarts=0,
    )
    return replace(leg, **changes)


def tx_legs() -> tuple[Leg, ...]:
    """Eight legs on two paths; leg 7 is down, leg 5 has lost segments."""
    return tuple(
        tx_leg(
            number,
            path=(number - 1) // 4,
            address=ADDRESSES[(number - 1) // 4],
            state=_TX_STATES[number - 1],
            rate=_TX_RATES[number - 1] * MIB,
            rtt_us=(0 if number == 7 else 12_300 + 700 * number if number < 5 else 104_000 + 350 * number),
            retransmissions=17 if number == 5 else 0,
            in_flight_bytes=0 if number == 7 else (number % 3 + 1) * MIB // 2,
            hedged=2 if number == 3 else 0,
            restarts=3 if number == 7 else 0,
        )
        for number in range(1, 9)
    )


def tx_snapshot(**changes: Any) -> Snapshot:
    """tx after 12.3 s of sending, not stalled, with a size expected; `changes`: fields with other values."""
    snapshot = Snapshot(
        role="tx",
        pid=4711,
        session=SESSION,
        name="db1",
        peer=ADDRESSES[0],
        elapsed_us=12_300 * MS_US,
        contacted=True,
        moved_bytes=6 * GIB,
        read_bytes=6 * GIB + 12 * MIB,
        size_bytes=16 * GIB,
        rate=572 * MIB,
        rate_average=499 * MIB,
        window_used_bytes=12 * MIB,
        window_bytes=64 * MIB,
        legs_up=7,
        restarts=3,
        retransmitted_frames=4,
        retransmitted_bytes=4 * MIB,
        hedges=2,
        corrupted=0,
        refused=1,
        waiting=f"network: frame 6144 on leg 3 ({ADDRESSES[0]})",
        idle_us=20 * MS_US,
        stalled=False,
        waits=Waits(source=0.11, network=0.78, core=0.05, sink=0.02, network_path=ADDRESSES[1]),
        verdict=f"bottleneck: the network ({ADDRESSES[1]}), 78 % of the time",
        cpu_share=0.87,
        legs=tx_legs(),
        paths=(
            Path(ADDRESSES[0], 4 * GIB, 389 * MIB, 4, 4, "4 legs bring as much as 6"),
            Path(ADDRESSES[1], 2 * GIB, 183 * MIB, 3, 4, "the tuner tries 4 legs"),
        ),
    )
    return replace(snapshot, **changes)


def rx_snapshot(**changes: Any) -> Snapshot:
    """The other side of `tx_snapshot`, which does not know the size; `changes`: fields with other values."""
    callers = ("10.0.0.1", "2001:db8:85a3:8d3:1319:8a2e:370:1")
    legs = tuple(
        replace(
            leg,
            address=callers[leg.path],
            state=_RX_STATES[leg.number - 1],
            in_flight_bytes=0,
            hedged=leg.hedged * MIB,
        )
        for leg in tx_legs()
        if leg.state != "down"
    )
    snapshot = tx_snapshot(
        role="rx",
        pid=1234,
        peer=callers[0],
        read_bytes=6 * GIB,
        size_bytes=0,
        window_used_bytes=3 * MIB,
        waiting="output",
        waits=Waits(source=0.11, network=0.70, core=0.04, sink=0.13, network_path=callers[1]),
        verdict=f"bottleneck: the network ({callers[1]}), 70 % of the time",
        legs=legs,
        paths=(Path(callers[0], 4 * GIB, 389 * MIB, 4, 0), Path(callers[1], 2 * GIB, 183 * MIB, 3, 0)),
    )
    return replace(snapshot, **changes)


def waiting_snapshot(**changes: Any) -> Snapshot:
    """tx that has been calling for 12 s and has reached nobody yet."""
    snapshot = tx_snapshot(
        state="waiting",
        contacted=False,
        peer="",
        elapsed_us=12 * S_US,
        moved_bytes=0,
        read_bytes=0,
        rate=0,
        rate_average=0,
        window_used_bytes=0,
        legs_up=0,
        restarts=0,
        retransmitted_frames=0,
        retransmitted_bytes=0,
        hedges=0,
        refused=0,
        waiting="network: the receiver",
        idle_us=12 * S_US,
        waits=Waits(),
        verdict="",
        legs=(),
        paths=tuple(Path(address, 0, 0, 0, 4, "connection refused") for address in ADDRESSES),
    )
    return replace(snapshot, **changes)


def stalled_snapshot(**changes: Any) -> Snapshot:
    """tx that has waited 12 s for one frame."""
    snapshot = tx_snapshot(
        rate=0,
        idle_us=12_400 * MS_US,
        stalled=True,
        waiting="network: frame 8812 on leg 3 (10.0.0.2)",
        window_used_bytes=64 * MIB,
        legs=tuple(replace(leg, rate=0, state="mute" if leg.number == 3 else leg.state) for leg in tx_legs()),
        paths=tuple(replace(path, rate=0) for path in tx_snapshot().paths),
    )
    return replace(snapshot, **changes)


def many_legs(count: int) -> tuple[Leg, ...]:
    """`count` legs on one path; every tenth is slow, the last but one is down."""
    return tuple(
        tx_leg(
            number,
            rate=(1 if number % 10 == 0 else 8) * MIB,
            state="down" if number == count - 1 else "busy",
        )
        for number in range(1, count + 1)
    )
