"""rx that keeps on serving: it listens, and each stream gets a process of its own, which gets the stream's connections.

A connection that has greeted is handed over a doorway to the process of its session; the first one of a session has
that process forked. What a stream does wrong, or what goes wrong with it, ends its process, and nothing else.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections import Counter
from fnmatch import fnmatchcase

import uvloop

from viamillipede.aio import report
from viamillipede.aio.clock import now_us
from viamillipede.aio.doorway import DONE, hand_over, read_news
from viamillipede.aio.handshake import hear_greeting
from viamillipede.aio.listener import Listener
from viamillipede.aio.log import EVENT, WARNING
from viamillipede.aio.observer import Observer
from viamillipede.aio.program import Program
from viamillipede.aio.receive import receive
from viamillipede.aio.refusals import OpeningRefused
from viamillipede.aio.rx import REFUSALS
from viamillipede.aio.sockets import raise_descriptor_limit
from viamillipede.aio.spawner import END_US, Ended, Spawner
from viamillipede.aio.systemd import Service
from viamillipede.config import LEGS_MAX, S_US, Address, RxConfig
from viamillipede.errors import Exit, Failure, LimitReached, PeerLost
from viamillipede.protocol.presence import Presence
from viamillipede.protocol.wire import Answer, Greeting, Verdict
from viamillipede.views.snapshot import Snapshot

ENDED_MAX = 4096  # streams that are remembered: a leg of theirs that was late shall not begin them again
TOLD_AGAIN_US = 60 * S_US  # how often the same refusal of the same host is worth a line


class Stream:
    """A stream that is being served. `session`: of its transmitter; `active`: it counts."""

    def __init__(self, session: bytes, label: str, doorway: socket.socket) -> None:
        self.session, self.label, self.doorway = session, label, doorway
        self.active = True
        self.snapshot: Snapshot | None = None
        self.handles: list[bytes] = []  # of the secrets by which legs belong to it


class Keeper(Program):
    """The listening process."""

    def __init__(self, config: RxConfig, spawner: Spawner, service: Service) -> None:
        super().__init__("rx", config, service=service)
        self.config, self._spawner = config, spawner
        self.presence = Presence(None, config.regroup_us, config.outage_us, now_us())
        self.receiver = Listener(self, config.bind, config.port, self._welcome, TOLD_AGAIN_US)
        self.listener = self.receiver
        self.streams: dict[int, Stream] = {}  # by the spawner's number
        self.outcomes: Counter[int] = Counter()  # exit statuses of the streams that have ended
        self._ended: dict[bytes, None] = {}  # the sessions of the latest ones
        self.observer = Observer(
            config, self.log, None, self.began_us, streams=self.outcomes, latest=self._snapshots
        )  # each stream shows itself
        self._idle_since_us = now_us()
        self._all_ended = asyncio.Event()

    def start(self) -> None:
        """See Program."""
        self.receiver.start()
        self.loop.add_reader(self._spawner.fileno(), self._on_ended)

    # ---- new connections ------------------------------------------------------------------------
    async def _welcome(self, sock: socket.socket, peer: Address) -> None:
        """See Listener. A tx greets; the answer comes from its stream."""
        greeting, channel = await hear_greeting(sock, self.keys, peer.host)
        verdict = self._verdict(greeting)
        if verdict is not Verdict.ACCEPTED:
            raise OpeningRefused(self._why(verdict, greeting), Answer(verdict), channel)
        with sock:
            stream = self._stream(greeting, peer)
            hand_over(stream.doorway, channel, peer, greeting)
        if self.keys is not None and channel.secret:
            stream.handles.append(self.keys.on_leg(channel.secret))

    def _why(self, verdict: Verdict, greeting: Greeting) -> str:
        """For those who look after it."""
        if verdict is Verdict.NAME:
            return f"its stream has the name {greeting.name!r}, which names {self.config.names} does not take"
        if verdict is Verdict.BUSY:
            return f"{report.plural(self.config.streams, 'stream')} at a time; it may come again"
        return REFUSALS[verdict]

    def _verdict(self, greeting: Greeting) -> Verdict:
        """What can be said without its stream."""
        if greeting.checkphrase != self.config.checkphrase:
            return Verdict.CHECKPHRASE
        if greeting.leg >= LEGS_MAX:
            return Verdict.MALFORMED
        if any(stream.session == greeting.session for stream in self.streams.values()):
            return Verdict.ACCEPTED
        if any(greeting.receiver) or greeting.session in self._ended:
            return Verdict.UNKNOWN
        if self.config.names is not None and not fnmatchcase(greeting.name, self.config.names):
            return Verdict.NAME
        return Verdict.BUSY if self._active() >= self.config.streams or self.outcome.done() else Verdict.ACCEPTED

    def _stream(self, greeting: Greeting, peer: Address) -> Stream:
        for stream in self.streams.values():
            if stream.session == greeting.session:
                return stream
        label = greeting.name or greeting.session.hex()[:8]
        number, doorway = self._spawner.start(label)
        stream = self.streams[number] = Stream(greeting.session, label, doorway)
        self._all_ended.clear()
        self.loop.add_reader(doorway.fileno(), self._on_news, stream)
        self.log.say(EVENT, f"stream {label} from {peer.host}: begins, {report.plural(self._active(), 'stream')} now")
        return stream

    def _active(self) -> int:
        return sum(stream.active for stream in self.streams.values())

    # ---- what the streams say -------------------------------------------------------------------
    def _on_news(self, stream: Stream) -> None:
        try:
            news = read_news(stream.doorway)
        except BlockingIOError:
            return
        except OSError:
            news = None
        if news is None:
            self._forget(stream)  # its status comes from the spawner
        elif isinstance(news, Snapshot):
            stream.snapshot = news
        elif news == DONE:
            stream.active = False
            self._idle_since_us = now_us()

    def _forget(self, stream: Stream) -> None:
        if stream.doorway.fileno() >= 0:
            self.loop.remove_reader(stream.doorway.fileno())
            stream.doorway.close()

    def _on_ended(self) -> None:
        ended = self._spawner.ended()
        if ended is None:
            self.loop.remove_reader(self._spawner.fileno())
            self._all_ended.set()
            self.fail(PeerLost("the process that forks the streams has ended"))
            return
        self._on_stream_ended(ended)

    def _on_stream_ended(self, ended: Ended) -> None:
        stream = self.streams.pop(ended.number)
        self._forget(stream)
        if self.keys is not None:
            for handle in stream.handles:
                self.keys.forget(handle)
        self.outcomes[ended.status] += 1
        if ended.status != Exit.LIMIT:  # then it has not begun
            self._ended[stream.session] = None
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        self._idle_since_us = now_us()
        how = "complete" if not ended.status else f"failed with status {ended.status}"
        self.log.say(WARNING if ended.status else EVENT, f"stream {stream.label}: {how}")
        if not self.streams:
            self._all_ended.set()

    def _snapshots(self) -> tuple[Snapshot, ...]:
        return tuple(stream.snapshot for stream in list(self.streams.values()) if stream.snapshot is not None)

    # ---- time and the end -----------------------------------------------------------------------
    def on_tick(self, now: int) -> None:
        """See Program."""
        wait_us = self.config.wait_us
        if wait_us is not None and not self.streams and now - self._idle_since_us >= wait_us:
            self.fail(LimitReached(f"no transmitter came within {wait_us / S_US:.10g} s"))

    def on_alarm(self) -> None:
        """See Program. There is none."""

    async def farewell(self, failure: BaseException | None) -> None:
        """See Program. The streams are told to end; `_keep` waits for them."""
        self.receiver.stop()
        self._signal(self._number_of(failure))

    def _number_of(self, failure: BaseException | None) -> int:
        status = failure.exit_status if isinstance(failure, Failure) else 0
        return status - 128 if status > 128 else signal.SIGTERM

    def _signal(self, number: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # the spawner has ended, and `_on_ended` says so
            self._spawner.signal(number)

    async def settle(self) -> None:
        """Wait for the streams, which take a bounded time to end; a second signal reaches them too."""
        end_us = now_us() + END_US
        while self.streams and not self._all_ended.is_set() and now_us() < end_us:
            waits = [asyncio.create_task(event.wait()) for event in (self._all_ended, self.hurry)]
            await asyncio.wait(waits, timeout=(end_us - now_us()) / S_US, return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()
            if self.hurry.is_set():
                self.hurry.clear()
                self._signal(signal.SIGTERM)

    def closing(self) -> str:
        """The last line."""
        served = f"{report.plural(sum(self.outcomes.values()), 'stream')} served"
        return f"{served}, {report.plural(self.strangers, 'connection')} refused" if self.strangers else served

    def on_step(self) -> None:
        """See Program."""
        super().on_step()
        self._signal(signal.SIGUSR2)

    def dump(self) -> str:
        """See Program: how many, and of each the dump of its own."""
        self._signal(signal.SIGUSR1)
        ended = ", ".join(f"{count} with status {status}" for status, count in sorted(self.outcomes.items()))
        now = report.plural(len(self.streams), "stream")
        lines = [f"viamillipede rx: pid {os.getpid()}, {now}; ended: {ended or 'none'}"]
        lines += [
            f"  stream {stream.label}: {'running' if stream.active else 'done'}" for stream in self.streams.values()
        ]
        return "\n".join(lines) + "\n"


async def _keep(config: RxConfig, spawner: Spawner, service: Service) -> None:
    program = Keeper(config, spawner, service)
    try:
        await program.run()
    finally:
        await program.settle()
        program.close(program.closing)


def keep(config: RxConfig) -> int:
    """Serve until a signal comes, or nobody for too long. Raises a Failure."""
    raise_descriptor_limit()
    service = Service.taken(os.environ)  # before the fork: it is ours, and not the streams'
    spawner = Spawner(config, receive, service.close)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_keep(config, spawner, service))
    finally:
        spawner.close()
    return 0
