"""Shows how a program stands, at intervals and at its end, in the way that the user has chosen.

Pictures are drawn by the views and written by the log, which never waits for a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from viamillipede.aio.log import WARNING, Log, utc_now
from viamillipede.aio.sockets import why
from viamillipede.config import INTERVAL_US_DEFAULT, MS_US, S_US, Address, Config
from viamillipede.errors import NoContact
from viamillipede.views.snapshot import Snapshot

PICTURE_US = 500 * MS_US  # between two pictures on a terminal
STALL_TOLD_FIRST_US, STALL_TOLD_EVERY_US = 10 * S_US, 60 * S_US
_STDERR = 2


def _size() -> os.terminal_size:
    try:
        return os.get_terminal_size(_STDERR)
    except OSError:  # the terminal has gone away
        return os.terminal_size((80, 24))


class Observer:
    """`look`: how the program stands now; None: it has nothing to show itself. `alone`: no other process draws on the
    same terminal. `streams`, `latest`: see MetricsServer; `share`: who is to know as well, each interval.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        look: Callable[[], Snapshot] | None,
        now: int,
        alone: bool = True,
        streams: Mapping[int, int] | None = None,
        latest: Callable[[], tuple[Snapshot, ...]] | None = None,
    ) -> None:
        self._log, self._look, self._alone = log, look, alone
        self._terminal = os.isatty(_STDERR)
        self._colour = self._terminal and "NO_COLOR" not in os.environ
        self.share: Callable[[Snapshot], None] | None = None
        self._own: tuple[Snapshot, ...] = ()
        self._streams, self._latest = streams, latest or (lambda: self._own)
        self._due_us = 0
        self._stall_tell_us = 0  # when it is to be said (again)
        self._metrics = config.metrics
        self._serving: Callable[[], None] | None = None
        interval_us = config.interval_us or INTERVAL_US_DEFAULT
        self._show: Callable[[Snapshot], None] | None = None
        self._end: Callable[[], None] = lambda: None
        if look is None:
            pass
        elif config.json:
            self._show = self._show_json
        elif config.dashboard:
            interval_us = config.interval_us or PICTURE_US
            self._show = self._open_dashboard
        elif self._terminal and config.verbose and alone:
            interval_us = config.interval_us or PICTURE_US
            self._show = self._open_live_line
        elif config.progress or config.interval_us:
            self._show = self._show_plain
        self._interval_us = interval_us
        self._due_us = now + max(interval_us, INTERVAL_US_DEFAULT if self._terminal and not config.dashboard else 0)

    # ---- time -----------------------------------------------------------------------------------
    def start(self) -> None:
        """Serve metrics, if they are wanted; see MetricsServer. NoContact: the address cannot be had."""
        if self._metrics is None:
            return
        from viamillipede.views.metrics import MetricsServer

        server = MetricsServer(self._metrics, self._latest, self._streams)
        try:
            server.start()
        except OSError as error:
            raise NoContact(f"cannot serve metrics at {self._metrics}: {why(error)}") from error
        self._serving = server.stop
        self._log.say(WARNING, f"metrics at http://{Address(self._metrics.host, server.port)}/metrics")

    def on_tick(self, now: int) -> None:
        """Show how things stand, if it is time."""
        if now < self._due_us:
            return
        self._due_us = now + self._interval_us
        if self._look is None or not (self._show or self._metrics or self.share):
            return
        snapshot = self._look()
        self._own = (snapshot,)
        if self.share is not None:
            self.share(snapshot)
        if self._show is not None and not (self._show == self._show_json and snapshot.exit_status is not None):
            self._show(snapshot)  # the last line of JSON, which says how it ended, is `stop`'s

    def on_idle(self, idle_us: int, stalled: bool, now: int) -> None:
        """Nothing has moved for so long: say so where nobody looks at a picture."""
        if idle_us < STALL_TOLD_FIRST_US:
            self._stall_tell_us = 0  # another one would be news
        elif stalled and self._look is not None and now >= self._stall_tell_us and (stall := self._look().stall()):
            self._stall_tell_us = now + STALL_TOLD_EVERY_US
            self._log.say(WARNING, stall)

    def clear(self) -> None:
        """The terminal as it was, for the last words. Idempotent."""
        end, self._end = self._end, lambda: None
        end()

    def stop(self) -> None:
        """The end, and the last line of JSON. Idempotent."""
        self.clear()
        show, self._show = self._show, None
        if show == self._show_json and self._look is not None:
            self._show_json(self._look())
        if self._serving is not None:
            self._serving()
            self._serving = None

    # ---- ways to show it ------------------------------------------------------------------------
    def _show_json(self, snapshot: Snapshot) -> None:
        from viamillipede.views.json_lines import snapshot_line

        self._log.raw(snapshot_line(snapshot, utc_now()))

    def _show_plain(self, snapshot: Snapshot) -> None:
        from viamillipede.views.live_line import plain_line

        line = plain_line(snapshot)
        if not self._alone:  # which of several streams
            speaker, colon, rest = line.partition(": ")
            line = f"{speaker} {snapshot.name or snapshot.session[:8]}{colon}{rest}"
        self._log.raw(line)

    def _open_live_line(self, snapshot: Snapshot) -> None:
        from viamillipede.views.live_line import LiveLine

        line = LiveLine(lambda: _size().columns, self._colour, _ascii_only())
        self._show = lambda snapshot: self._log.live(line.render(snapshot))
        self._end = lambda: self._log.live("")
        self._show(snapshot)

    def _open_dashboard(self, snapshot: Snapshot) -> None:
        from viamillipede.views.dashboard import ENTER, LEAVE, Dashboard

        dashboard = Dashboard(self._colour, _ascii_only())

        def show(snapshot: Snapshot) -> None:
            dashboard.observe(snapshot)
            size = _size()
            self._log.draw(dashboard.screen(size.columns, size.lines))

        def leave() -> None:
            self._log.screen(None)
            self._log.draw(LEAVE)

        self._log.draw(ENTER)
        self._log.screen(dashboard.message)
        self._show, self._end = show, leave
        show(snapshot)


def _ascii_only() -> bool:
    """Whether the terminal's characters are not those of Unicode, as far as the environment tells."""
    said = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "UTF-8")
    return "utf" not in said.lower()
