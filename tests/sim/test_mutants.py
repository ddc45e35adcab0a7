"""The simulation notices what is wrong with the comparing of digests: each mutant of the core fails a few seeds."""

import contextlib
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from tests.sim.world import run_seed
from viamillipede.errors import IntegrityError
from viamillipede.protocol import digest
from viamillipede.protocol.digest import Comparison, StreamDigest, Verification, agreed
from viamillipede.protocol.rx_session import RxSession
from viamillipede.protocol.wire import Kind, encode_control

SEEDS = range(1, 61)


def first_failure(seeds: range) -> str:
    """Of the first seed that fails."""
    for seed in seeds:
        try:
            run_seed(seed)
        except (AssertionError, IntegrityError) as error:
            return f"{type(error).__name__}: {error}"
    return ""


def answered_once(self: Comparison) -> bytes | None:
    """SUM is said once: if it is lost, it is lost for ever."""
    if self.own is None or self._theirs is None or self.compared:
        return None
    return encode_control(Kind.SUM, payload=self.own.value())


def asked_once(self: RxSession) -> None:
    """DIGEST is said once on each leg that is up; together with `no_question`."""
    self.digest.asking = True
    for leg in self.legs.values():
        self._say(leg, self.digest.question(self.reassembly.written) or self._ack_message())


def no_question(self: RxSession) -> bytes:
    """DIGEST is not repeated: neither on a leg that was quiet, nor on one that is new."""
    return encode_control(Kind.DONE, offset=self.reassembly.written) if self.done else self._ack_message()


def never_differ(own: StreamDigest, theirs: bytes) -> None:
    """Whatever they are."""


def length_differs(own: StreamDigest, theirs: bytes) -> None:
    """Compares something, but not the digests."""
    if len(theirs) != len(own.value()):
        raise IntegrityError("not as long")


def always_differ(own: StreamDigest, theirs: bytes) -> None:
    """Whatever they are."""
    raise IntegrityError("they differ")


def done_at_once(self: Verification, features: int) -> None:
    """rx does not wait for the answer."""
    self.features = features
    self.own, self.verified, self.asking = agreed(features), True, False


@pytest.mark.parametrize(
    ("mutants", "noticed"),
    [
        ([(Comparison, "answer", answered_once)], "^AssertionError: liveness"),
        ([(RxSession, "ask_digest", asked_once), (RxSession, "_standing", no_question)], "^AssertionError: liveness"),
        ([(digest, "compare", never_differ)], "^AssertionError: a damaged byte was not found"),
        ([(digest, "compare", length_differs)], "^AssertionError: a damaged byte was not found"),
        ([(digest, "compare", always_differ)], "^IntegrityError: they differ"),
        ([(Verification, "__init__", done_at_once)], "^AssertionError: rx has verified what tx has not"),
    ],
)
def test_a_mutant_is_caught(mutants: list[tuple[Any, str, Callable[..., Any]]], noticed: str) -> None:
    with contextlib.ExitStack() as patched:
        for target, name, mutant in mutants:
            patched.enter_context(mock.patch.object(target, name, mutant))
        failure = first_failure(SEEDS)
    assert re.match(noticed, failure), failure
