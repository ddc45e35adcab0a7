"""`viamillipede doctor`: what limits a transfer on this host, or on the way to a receiver, and what mends it."""

import asyncio
import os
import sys

import uvloop

from viamillipede.aio.sockets import raise_descriptor_limit
from viamillipede.config import Address, DoctorConfig
from viamillipede.doctor.advice import recommend
from viamillipede.doctor.checks import PIPES, TCP
from viamillipede.doctor.host import Host
from viamillipede.doctor.machine import MACHINE
from viamillipede.doctor.network import NETWORK
from viamillipede.doctor.peer import Probe, words_for
from viamillipede.doctor.report import Section, as_json, host_text, peer_as_json, peer_text
from viamillipede.errors import Exit, Failure
from viamillipede.standard_streams import print_all, write_stderr

_SECTIONS = (("Machine", MACHINE), ("Pipes and descriptors", PIPES), ("TCP", TCP), ("Interfaces", NETWORK))
_STDOUT = 1


def check(host: Host) -> list[Section]:
    """All checks of a host."""
    return [(title, [found for check in checks for found in check(host)]) for title, checks in _SECTIONS]


async def _measure(config: DoctorConfig, address: Address, host: Host) -> tuple[Probe, Failure | None]:
    """The probe after its end, and why it ended early."""
    probe = Probe(words_for(config, address), host)
    try:
        await probe.run()
    except Failure as failure:
        return probe, failure
    finally:
        probe.stop()
    return probe, None


def _warn(address: Address) -> None:
    write_stderr(
        f"viamillipede doctor: sends a test stream to {address} for about 15 s, as fast as it can\n"
        f"viamillipede doctor: what it writes must be thrown away, as by: viamillipede rx {address.port} > /dev/null\n"
    )


def examine(config: DoctorConfig, host: Host | None = None) -> int:
    """Check this host, and the way to `config.address` if there is one; the exit status. Raises Failure.

    What was found is on standard output by then. Advice is no failure; a receiver that cannot be reached is.
    """
    host = host or Host()
    raise_descriptor_limit()
    sections = check(host)
    colour = not config.json and os.isatty(_STDOUT) and not os.environ.get("NO_COLOR")
    if not config.json:
        print_all(host_text(sections, colour))
    if config.address is None:
        return print_all(as_json(sections, None)) if config.json else int(Exit.COMPLETE)
    if config.verbose:
        _warn(config.address)
    sys.stdout.flush()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        probe, failure = runner.run(_measure(config, config.address, host))
    measured = probe.measured()
    advice = recommend(measured)
    if config.json:
        peer = peer_as_json(measured, advice) if measured.connects_us or measured.steps else None
        print_all(as_json(sections, peer))
    elif measured.steps:
        print_all(peer_text(measured, advice, colour))
    if failure is not None:
        raise failure
    return int(Exit.COMPLETE)
