"""A picture of one seed, as SVG: a row for the output, one for the window, one for the number of legs, one per leg.

A leg's row: each copy of a frame is a bar from when it was given to the leg to when rx had read it, new ones green,
those sent again because a leg was lost orange, hedges red, and pale if rx had no use for the copy any more; behind
them, in blue, the bytes in the leg's socket. The palest did not arrive. Where the output stood still for long, all
rows are grey, and the frames that it waited for have a black edge. Roads that fail and return are dashed lines. In a
browser, bars and lines tell their story when pointed at.
"""

from xml.sax.saxutils import escape

from tests.sim.record import Record, Sample, Sent
from viamillipede.config import KIB, MIB, MS_US, S_US

WIDTH, LEFT, RIGHT, HEAD = 1500, 110, 20, 48
CHART, ROW, LANES = 90, 34, 5  # heights in pixels; how many bars of a leg lie above each other at most
SILENT_US = 300 * MS_US  # longer than this the output stands still
COLOURS = {"new": "#2a9d3a", "again": "#f08c00", "hedged": "#d6232a"}
INK, GREY, BLUE, VIOLET = "#222", "#bbb", "#9cc3ea", "#7b3fa0"


class Picture:
    """Collects shapes; x is time."""

    def __init__(self, begin_us: int, end_us: int) -> None:
        self._begin_us, self._per_us = begin_us, (WIDTH - LEFT - RIGHT) / max(end_us - begin_us, 1)
        self.shapes: list[str] = []

    def x(self, at_us: int) -> float:
        """Pixels from the left."""
        return LEFT + (at_us - self._begin_us) * self._per_us

    def text(self, x: float, y: float, text: str, anchor: str = "start", colour: str = INK) -> None:
        """One line; `y` is its foot."""
        self.shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
        )

    def box(self, since_us: int, to_us: int, y: float, height: float, colour: str, title: str = "",
            opacity: float = 1, edge: str = "none") -> None:  # fmt: skip
        """A bar over a time."""
        width = max(self.x(to_us) - self.x(since_us), 1)
        told = f"<title>{escape(title)}</title>" if title else ""
        self.shapes.append(
            f'<rect x="{self.x(since_us):.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{colour}" fill-opacity="{opacity}" stroke="{edge}">{told}</rect>'
        )

    def line(self, at_us: int, y: float, height: float, colour: str, title: str, dash: str = "") -> None:
        """A moment."""
        x = self.x(at_us)
        self.shapes.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + height:.1f}" stroke="{colour}" stroke-width="1.5" '
            f'stroke-dasharray="{dash}"><title>{escape(title)}</title></line>'
        )

    def curve(self, points: list[tuple[int, float]], most: float, y: float, height: float, colour: str,
              area: bool = False) -> None:  # fmt: skip
        """Values over time, 0 at the foot of a row and `most` at its top."""
        if not points:
            return
        path = [f"{self.x(at):.1f},{y + height - height * value / max(most, 1):.1f}" for at, value in points]
        if area:
            foot = f"{y + height:.1f}"
            path = [f"{self.x(points[0][0]):.1f},{foot}", *path, f"{self.x(points[-1][0]):.1f},{foot}"]
        paint = f'fill="{colour}" stroke="none"' if area else f'fill="none" stroke="{colour}" stroke-width="1.5"'
        self.shapes.append(f'<polyline points="{" ".join(path)}" {paint}/>')


def spell(count: float) -> str:
    """Bytes."""
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count / KIB:.0f} KiB"


def stalls(samples: list[Sample]) -> list[tuple[int, int, int]]:
    """When the output stood still for longer than SILENT_US, once it had begun, and the frame that was due."""
    found = []
    moved: Sample | None = None
    for sample in samples:
        if moved is None or sample.written != moved.written:
            if moved is not None and moved.written and sample.at_us - moved.at_us > SILENT_US:
                found.append((moved.at_us, sample.at_us, moved.due))
            moved = sample
    return found


def _charts(picture: Picture, samples: list[Sample], y: float) -> float:
    total = max(sample.head for sample in samples)
    limit = max(sample.limit for sample in samples)
    legs = max(max(sample.wanted, len(sample.unacked)) for sample in samples)
    picture.text(LEFT - 6, y + 14, "output", "end")
    picture.text(LEFT - 6, y + 30, spell(total), "end")
    picture.curve([(s.at_us, s.head) for s in samples], total, y, CHART, GREY)
    picture.curve([(s.at_us, s.written) for s in samples], total, y, CHART, INK)
    y += CHART + 12
    picture.text(LEFT - 6, y + 14, "window", "end")
    picture.text(LEFT - 6, y + 30, spell(limit), "end")
    picture.curve([(s.at_us, s.head - s.written) for s in samples], limit, y, CHART, BLUE, area=True)
    picture.curve([(s.at_us, s.limit) for s in samples], limit, y, CHART, INK)
    picture.curve([(s.at_us, s.memory) for s in samples], limit, y, CHART, VIOLET)
    y += CHART + 12
    picture.text(LEFT - 6, y + 14, f"legs: {legs}", "end")
    picture.curve([(s.at_us, len(s.unacked)) for s in samples], legs, y, ROW, BLUE, area=True)
    picture.curve([(s.at_us, s.wanted) for s in samples], legs, y, ROW, INK)
    return y + ROW + 12


def _leg(picture: Picture, record: Record, leg: int, y: float, most: int, awaited: set[int]) -> None:
    picture.shapes.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y + ROW}" y2="{y + ROW}" stroke="#ddd"/>')
    picture.text(LEFT - 6, y + 14, f"leg {leg}", "end")
    end_us = record.samples[-1].at_us
    points = [(s.at_us, float(s.unacked.get(leg, 0))) for s in record.samples]
    picture.curve(points, most, y, ROW, BLUE, area=True)
    ends = sorted((at, why) for at, lost, why in record.lost if lost == leg)
    arrived = {(each.seq, index): each for index, each in enumerate(record.arrived) if each.leg == leg}
    by_seq: dict[int, list[tuple[int, bool]]] = {}
    for (seq, _), each in arrived.items():
        by_seq.setdefault(seq, []).append((each.at_us, each.useful))
    free = [0] * LANES  # until when each lane is taken
    for sent in record.sent:
        if sent.leg == leg:
            edge = "#000" if sent.seq in awaited else "none"
            _bar(picture, sent, by_seq.get(sent.seq, []), [*ends, (end_us, "")], free, y, edge)
    for at_us, up, rank in record.up:
        if up == leg:
            picture.line(at_us, y, ROW, "#2a6fd6", f"leg {leg} is up, to address {rank}")
    for at_us, why in ends:
        picture.line(at_us, y, ROW, "#000", f"leg {leg} is lost: {why}")


def _bar(picture: Picture, sent: Sent, arrivals: list[tuple[int, bool]], ends: list[tuple[int, str]],
         free: list[int], y: float, edge: str) -> None:  # fmt: skip
    """One copy of a frame."""
    gone_us = min(at for at, _ in ends if at >= sent.at_us)
    arrival = min([each for each in arrivals if sent.at_us <= each[0] <= gone_us], default=None)
    to_us, useful = arrival if arrival is not None else (gone_us, False)
    lane = min(range(LANES), key=lambda i: (free[i] > sent.at_us, free[i] if free[i] > sent.at_us else i))
    free[lane] = to_us
    fate = "useful" if useful else "in vain" if arrival is not None else "never arrived"
    title = f"frame {sent.seq}, {spell(sent.length)}, {sent.how}, {(to_us - sent.at_us) / S_US:.3f} s, {fate}"
    height = (ROW - 4) / LANES
    opacity = 1 if useful else 0.45 if arrival is not None else 0.2
    picture.box(sent.at_us, to_us, y + 2 + lane * height, height - 1, COLOURS[sent.how], title, opacity, edge)


def draw(record: Record, title: str, text: str) -> str:
    """The picture of a run; `text`, what was drawn for it, is told where the title is pointed at."""
    begin_us, end_us = record.samples[0].at_us, record.samples[-1].at_us
    picture = Picture(begin_us, end_us)
    legs = sorted({each.leg for each in record.sent} | {leg for _, leg, _ in record.up})
    height = HEAD + 2 * (CHART + 12) + ROW + 12 + len(legs) * ROW + 30
    stood_still = stalls(record.samples)
    for since_us, to_us, due in stood_still:
        still = f"the output stood still for {(to_us - since_us) / S_US:.2f} s: it waited for frame {due}"
        picture.box(since_us, to_us, HEAD, height - HEAD - 24, "#000", still, 0.08)
    step_us = next(s for s in (S_US // 10, S_US // 2, S_US, 2 * S_US, 5 * S_US, 20 * S_US, 10**12)
                   if (end_us - begin_us) / s < 25)  # fmt: skip
    for at_us in range(begin_us, end_us + 1, step_us):
        picture.line(at_us, HEAD, height - HEAD - 24, "#eee", "")
        picture.text(picture.x(at_us), height - 8, f"{(at_us - begin_us) / S_US:g} s", "middle")
    y = _charts(picture, record.samples, HEAD)
    most = max((count for sample in record.samples for count in sample.unacked.values()), default=1)
    for leg in legs:
        _leg(picture, record, leg, y, most, {due for _, _, due in stood_still})
        y += ROW
    for at_us, mark in record.marks:
        picture.line(at_us, HEAD, height - HEAD - 24, "#d6232a", mark, "6 4")
        picture.text(picture.x(at_us) + 3, HEAD + 10, mark, colour="#d6232a")
    legend = "".join(
        f'<tspan fill="{colour}">&#9632; {how}  </tspan>' for how, colour in [*COLOURS.items(), ("in the socket", BLUE)]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}<title>{escape(text)}</title></text>\n'
        f'<text x="{LEFT}" y="36">{legend}(a socket with {spell(most)} fills its row; '
        f"window: in use, limit, rx's memory; legs: up, wanted)</text>\n" + "\n".join(picture.shapes) + "\n</svg>\n"
    )
