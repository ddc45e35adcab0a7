"""Which frame is worth a second copy, and on which leg: by what is expected of both.

A copy that is on its way will take `remaining_us` on its leg, a new one `offer_us` on another. When
nothing else can be sent (the window is full, or the input has ended) a copy costs only what the
network has left over, and it is worth while if it will come clearly sooner. That removes the tail
of a stream and the stall behind one slow leg. A frame that is very late is hedged even though there
is more to send: the window would be full of what waits for it before long.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence

from viamillipede.config import COPIES_MAX, KIB, LATE_US_MIN, MS_US, S_US
from viamillipede.protocol.send_window import Frame, SendWindow
from viamillipede.protocol.tx_leg import TxLeg

MARGIN_US = 20 * MS_US  # what is gained must be more than acknowledgements and timers blur
VERY_LATE_US = 1 * S_US
MIDDLING_BYTES = 64 * KIB
CANDIDATES_MAX = 16  # of the oldest frames, while the window is what limits; all of them at the end


def pick(
    window: SendWindow, legs: Mapping[int, TxLeg], idle: Collection[int], since_us: int, now_us: int
) -> tuple[int, Frame] | None:
    """The idle leg and the frame to hedge on it when nothing else can be sent; None if no copy is worth it.

    since_us: rx has been waiting for frames since then; what it did not read before was not late.
    """
    offers = _rank(legs, idle, now_us)
    for number, frame in enumerate(window.unarrived() if offers else ()):
        if number >= CANDIDATES_MAX and not window.end_cut:
            return None
        if now_us - max(frame.sent_us, since_us) < LATE_US_MIN and not window.end_cut:
            continue
        leg = _better(window, frame, legs, offers, since_us, now_us)
        if leg is not None:
            return leg, frame
    return None


def pick_very_late(
    window: SendWindow, legs: Mapping[int, TxLeg], idle: Collection[int], since_us: int, now_us: int
) -> tuple[int, Frame] | None:
    """The same for a frame that is hedged before anything new is sent."""
    offers: list[int] = []
    for frame in itertools.islice(window.unarrived(), CANDIDATES_MAX):
        if now_us - max(frame.first_us, since_us) < VERY_LATE_US:
            return None  # so is what follows
        if now_us - frame.sent_us < VERY_LATE_US:
            continue  # its latest copy is younger
        offers = offers or _rank(legs, idle, now_us)
        leg = _better(window, frame, legs, offers, since_us, now_us)
        if leg is not None:
            return leg, frame
    return None


def _rank(legs: Mapping[int, TxLeg], idle: Collection[int], now_us: int) -> list[int]:
    """The idle legs, those first that would bring a frame of middling length soonest."""
    return sorted(idle, key=lambda leg: legs[leg].offer_us(MIDDLING_BYTES, now_us))


def _better(
    window: SendWindow, frame: Frame, legs: Mapping[int, TxLeg], offers: Sequence[int], since_us: int, now_us: int
) -> int | None:
    """The first of the idle legs that would bring the frame clearly sooner than those that carry it."""
    best = next((leg for leg in offers if leg not in frame.legs), None)
    if frame.queued or len(frame.legs) >= COPIES_MAX or best is None:
        return None
    age_us, offer_us = now_us - max(frame.sent_us, since_us), legs[best].offer_us(frame.length, now_us)
    if frame is window.oldest() and age_us >= LATE_US_MIN:
        if all(legs[leg].overdue(frame.seq, since_us, now_us) for leg in frame.legs):
            return best  # everything behind it waits
    if age_us < offer_us:
        return None  # not even the latest copy could be there yet
    remaining_us = min(legs[leg].remaining_us(frame.seq, since_us, now_us) for leg in frame.legs)
    return best if remaining_us > offer_us + offer_us // (4 if window.end_cut else 2) + MARGIN_US else None
