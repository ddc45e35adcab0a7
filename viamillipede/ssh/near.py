"""The near end: ssh is run, the far end asked, the stream moved, and both outcomes made into one.

The transfer here is told about as that of any tx or rx; what we say speaks as `to` or `from`.
"""

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from viamillipede.aio.sockets import check_congestion
from viamillipede.config import S_US, Address, RxConfig, TxConfig
from viamillipede.errors import (
    Exit,
    Failure,
    HungUp,
    Interrupted,
    LimitReached,
    NoContact,
    PeerLost,
    RemoteFailed,
    SessionRefused,
    Terminated,
    UsageError,
)
from viamillipede.protocol.wire import VERSION
from viamillipede.secret import fresh_key, spell_key
from viamillipede.ssh.aside import Aside
from viamillipede.ssh.bring import ZIPAPP, is_zipapp, taker, zipapp
from viamillipede.ssh.control import OPTIONS, Ended, Ssh, dying_with, stopped_by_signals
from viamillipede.ssh.hint import Hint
from viamillipede.ssh.messages import Answer, Ending, NotUnderstood, Request, another_version, encode
from viamillipede.ssh.tunnel import LOOPBACK, tunnel
from viamillipede.ssh.words import FAR_COMMAND, FAR_END, FAR_PYTHON, Asked, dial_at
from viamillipede.standard_streams import PROGRAM, check_own_end, complain, print_all, write_stderr

FAR_PATIENCE_US = 30 * S_US  # how much longer than we the far end waits for the first contact: who fails first tells
ENDING_S = 30.0  # how long a far end whose stream is whole may take to say so
ENDED_S = 12.0  # how long one that was told to end may take: its command is killed before
CLOSED_S = 3.0  # how long ssh may stay when it has said so: what the command has left behind may hold it for ever
CONFIG_S = 20.0  # how long ssh may take to say what its configuration says
PORT_MAX = 65535
_SSH_FAILED, _CANNOT_RUN, _NOT_FOUND = 255, 126, 127
_CLEAR = "\r\x1b[K"  # of the line that is drawn anew
_SCHEME = re.compile(r"ssh://(?:[^@/]*@)?(\[[^\]]*\]|[^:/]+)")


def run(asked: Asked) -> int:
    """From start to end; the exit status, or a Failure that carries one."""
    if asked.shown:
        return print_all(asked.shown)
    check_own_end(asked.config)
    check_congestion(asked.config.congestion)
    program = zipapp(asked) if asked.bring else None
    key = fresh_key()
    config = replace(asked.config, key=key)
    wait_us = (config.wait_us or 0) + FAR_PATIENCE_US
    request = Request(
        asked.far_role, spell_key(key), {**asked.far_words, "wait": f"{wait_us // 1000}ms"}, list(asked.command),
        asked.ports, asked.tunnel, config.verbose if config.verbose > 1 else -1, program is not None,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        with stopped_by_signals():
            host = "" if asked.tunnel else _host(asked)
            aside = stack.enter_context(Aside(asked.verb)) if config.json else None
            ssh = stack.enter_context(Ssh(asked.ssh, (), asked.dest, _remote(asked, program), aside))
            answer = _ask(asked, ssh, request, program)
            if asked.tunnel:
                port = stack.enter_context(tunnel(asked, answer.port, aside))
                addresses = dial_at(asked, LOOPBACK, port)
            else:
                addresses = dial_at(asked, host, answer.port)
            if aside is not None:
                aside.start()
        outcome = _move(asked, replace(config, addresses=addresses))
        with stopped_by_signals():
            return combine(asked, outcome, ssh, addresses)


def _remote(asked: Asked, program: Path | None) -> str:
    """What is run over there."""
    if program is not None:
        return taker(asked.far_command or FAR_PYTHON, program.stat().st_size)
    return f"{asked.far_command or FAR_COMMAND} {FAR_END}"


def _host(asked: Asked) -> str:
    """The host behind the name that ssh knows: what its configuration says, or the name itself."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        found = subprocess.run(
            [*asked.ssh, *OPTIONS, "-G", asked.dest],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=CONFIG_S, check=False,
            preexec_fn=dying_with(os.getpid()),
        )  # fmt: skip
        match = re.search(r"^hostname (\S+)$", found.stdout, re.MULTILINE)
        if found.returncode == 0 and match:
            return match[1]
    if scheme := _SCHEME.match(asked.dest):
        return scheme[1].strip("[]")
    return asked.dest.rpartition("@")[2].strip("[]")


def _ask(asked: Asked, ssh: Ssh, request: Request, program: Path | None) -> Answer:
    """The far end's answer. Raises a Failure that says why there is none."""
    try:
        data = (b"" if program is None else program.read_bytes()) + encode(request)
        answer = ssh.exchange(Answer, data)
    except Ended as ended:
        raise _no_answer(asked, ended.status) from None
    except NotUnderstood as error:
        raise SessionRefused(f"{asked.dest}: {another_version(str(error))}") from error
    if answer.error:
        raise _failure_of(answer.status, f"{asked.dest}: {answer.error}")
    if answer.wire != VERSION:
        raise SessionRefused(f"{asked.dest}: {another_version(f'it speaks version {answer.wire}, and we {VERSION}')}")
    if not 0 < answer.port <= PORT_MAX:
        raise SessionRefused(f"{asked.dest}: {another_version('it listens on what is no port')}")
    return answer


def _no_answer(asked: Asked, status: int | None) -> Failure:
    """Why ssh ended before the answer came."""
    dest = asked.dest
    if status == _SSH_FAILED:
        ssh = " ".join(asked.ssh)
        return NoContact(f"ssh to {dest} failed, and said why above; check that '{ssh} {dest} true' works")
    if status == _NOT_FOUND and asked.bring:
        python = asked.far_command or FAR_PYTHON
        return NoContact(f"{dest} has no {python!r}; install Python 3.11 or newer there, or name it with far-command")
    if status in (_NOT_FOUND, _CANNOT_RUN):
        command = asked.far_command or FAR_COMMAND
        bring = "'bring' to send this one along" if is_zipapp() else f"'bring-file {ZIPAPP}' to send that zipapp along"
        return NoContact(
            f"{dest} has no {command!r} that can be run; install viamillipede there, say where it is with "
            f"'far-command /path/to/viamillipede', or say {bring}"
        )
    if status == Exit.USAGE and asked.bring:
        return SessionRefused(f"{dest}: what was brought does not run there, and said why above")
    if status == Exit.USAGE:
        return SessionRefused(f"{dest}: {another_version(f'it does not know {FAR_END!r}')}")
    if status is not None and status < 0:
        return NoContact(f"ssh to {dest} was ended by signal {-status} before the far end had answered")
    how = "did not end" if status is None else f"ended with status {status}"
    return NoContact(f"ssh to {dest} {how}, and what it ran there gave no answer; what was said is above")


def _failure_of(status: int, text: str) -> Failure:
    """What the far end refuses with `status`, as a failure of ours with the same one."""
    kinds: dict[int, type[Failure]] = {
        Exit.USAGE: UsageError,
        Exit.NO_CONTACT: NoContact,
        Exit.REFUSED: SessionRefused,
    }
    return kinds.get(status, RemoteFailed)(text)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the transfer went here. `hinted`: what can be done about a port that is not reached was said already."""

    status: int
    failure: Failure | None = None
    hinted: bool = False


def _move(asked: Asked, config: TxConfig | RxConfig) -> Outcome:
    """The stream, from here or to here."""
    with Hint({address.port for address in config.addresses}, lambda: _hint(asked, config)) as hint:
        try:
            if isinstance(config, TxConfig):
                from viamillipede.aio.tx import transmit

                return Outcome(transmit(config))
            from viamillipede.aio.receive import receive

            return Outcome(receive(config))
        except Failure as failure:
            return Outcome(int(failure.exit_status), failure, hint.said and _may_hint(config))


def _may_hint(config: TxConfig | RxConfig) -> bool:
    """Whether it is wanted, and would not be written into a picture."""
    return config.verbose > 0 and not config.dashboard


def _hint(asked: Asked, config: TxConfig | RxConfig) -> None:
    if _may_hint(config):
        if os.isatty(2) and not config.json:
            write_stderr(_CLEAR)
        complain(f"{PROGRAM} {asked.verb}", _unreached(asked, config.addresses), json=config.json)


def combine(asked: Asked, outcome: Outcome, ssh: Ssh, addresses: tuple[Address, ...]) -> int:
    """Wait for the far end, and make one status of two. Raises Failure."""
    failure = outcome.failure
    told = isinstance(failure, RemoteFailed)  # by the far end, which then ends by itself, and says so through ssh
    gone = ssh.has_ended()
    if failure is not None and not told:
        ssh.let_go()
    ending, status, lost = _ending(ssh, failure is None)
    if failure is None:
        if ending is None:
            raise RemoteFailed(f"{asked.dest}: the stream is whole here, but the far end {_how(status)}")
        if ending.status:
            raise RemoteFailed(f"{asked.dest}: the far end failed: {ending.error or f'status {ending.status}'}")
        return int(Exit.COMPLETE)
    speaker = f"{PROGRAM} {asked.verb}"
    if told and lost:  # it was ended because ssh was: without that it would not have failed
        raise PeerLost(_cut(asked, status))
    known = isinstance(failure, RemoteFailed | UsageError | Interrupted | HungUp | Terminated)
    if isinstance(failure, NoContact | LimitReached):  # the second one is what rx says of a tx that does not come
        if gone:
            how = f"failed: {ending.error}" if ending is not None else _how(status)
            complain(speaker, f"{asked.dest}: the far end {how}", json=asked.config.json)
        elif not outcome.hinted:
            complain(speaker, _unreached(asked, addresses), json=asked.config.json)
        return int(Exit.NO_CONTACT)
    if ending is None and not known:
        complain(speaker, f"{asked.dest}: the far end {_how(status)}", json=asked.config.json)
    elif ending is not None and ending.status not in (0, Exit.REMOTE_FAILED, Exit.TERMINATED) and not known:
        complain(speaker, f"{asked.dest}: the far end failed: {ending.error}", json=asked.config.json)
    raise failure


def _ending(ssh: Ssh, patient: bool) -> tuple[Ending | None, int, bool]:
    """What the far end says of its end, ssh's status, and whether ssh failed before that was said."""
    ending, lost = None, False
    try:
        ending = ssh.exchange(Ending, timeout_s=ENDING_S if patient else ENDED_S)
    except Ended as ended:  # else its status is that of what it ran over there
        lost = ended.status is not None and (ended.status < 0 or ended.status == _SSH_FAILED)
    except (TimeoutError, NotUnderstood, PeerLost):
        pass  # it said nothing that could be understood
    return ending, ssh.end(CLOSED_S if ending is not None else 0.0), lost


def _cut(asked: Asked, status: int) -> str:
    """That ssh ended by itself, with this status."""
    how = f", by signal {-status}," if status < 0 else ""
    return f"ssh to {asked.dest} ended{how} in the middle of the transfer; it carries the control channel"


def _how(status: int) -> str:
    """What became of it, by the status of ssh."""
    if status == _SSH_FAILED:
        return "was killed, or ssh lost its connection"
    if status < 0:
        return f"is lost: ssh was ended by signal {-status}"
    return f"ended with status {status} and did not say why" if status else "did not say how it ended"


def _unreached(asked: Asked, addresses: tuple[Address, ...]) -> str:
    """What can be done about a host that ssh reaches and we do not."""
    if asked.tunnel:
        return f"{asked.dest} is there, but nothing comes through the tunnel; does its sshd allow TCP forwarding?"
    port = addresses[0].port
    return (
        f"{asked.dest} is there, but not its port {port} from here, as behind a firewall; say 'tunnel' to send all "
        f"through ssh, 'port LOW-HIGH' where some ports are open, or 'also ADDRESS' where it has another address"
    )
