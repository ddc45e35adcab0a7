"""The digest of a whole stream, taken in order, on both sides: xxh3-128 against accidents, sha256 on request."""

import hashlib
from typing import Protocol

import xxhash

from viamillipede.config import DIGEST_BYTES_MAX
from viamillipede.errors import FrameError, IntegrityError
from viamillipede.protocol.wire import FEATURE_CHECKSUM, FEATURE_SHA256, FEATURE_XXH3, Kind, encode_control

FEATURE_OF = {"auto": 0, "xxh3": FEATURE_XXH3, "sha256": FEATURE_SHA256}


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class StreamDigest:
    """What was taken so far. `slow`: worth a thread, which then must be the only one to call `update`."""

    def __init__(self, feature: int) -> None:
        self.slow = feature == FEATURE_SHA256
        self.name = "sha256" if self.slow else "xxh3-128"
        self._hash: _Hash = hashlib.sha256() if self.slow else xxhash.xxh3_128()

    def update(self, data: memoryview) -> None:
        """The next bytes of the stream."""
        self._hash.update(data)

    def value(self) -> bytes:
        """The digest of what was taken, DIGEST_BYTES_MAX bytes at most."""
        value = self._hash.digest()
        assert len(value) <= DIGEST_BYTES_MAX
        return value

    def __str__(self) -> str:
        return f"{self.name} {self.value().hex()}"


def agreed(features: int) -> StreamDigest | None:
    """What both sides are to take; the slower one where both were asked for."""
    for feature in (FEATURE_SHA256, FEATURE_XXH3):
        if features & feature:
            return StreamDigest(feature)
    return None


def agree(checksum: bool, digest: str, wanted: int, can_direct: bool, sealed: bool = False) -> tuple[int, bool]:
    """The features of a session, and whether rx moves bytes to its output without touching them.

    `checksum` and `digest` are what rx wants, `wanted` what tx does; `can_direct`: the output can take bytes
    straight from a socket. Where they are copied all the same the digest costs little, and is taken in any case,
    unless the legs are `sealed`: then every byte is authenticated, and a digest costs as much again as that.
    """
    features = wanted | FEATURE_OF[digest] | (FEATURE_CHECKSUM if checksum else 0)
    direct = can_direct and not features
    if not direct and not sealed and not features & FEATURE_SHA256:
        features |= FEATURE_XXH3
    return features, direct


class Comparison:
    """tx's side of comparing. rx says DIGEST when it has taken all; tx answers SUM on the leg that said so."""

    def __init__(self, features: int) -> None:
        self.own = agreed(features)  # to be given the input; None: no digest is taken
        self.compared = self.own is None  # and they were the same
        self._theirs: bytes | None = None

    def on_theirs_untrusted(self, payload: bytes, whole: bool) -> None:
        """rx has told its digest. `whole`: of as many bytes as were sent. FrameError: it cannot have one."""
        if self.own is None or not whole:
            raise FrameError("the receiver has a digest of what it cannot have")
        self._theirs = payload

    def answer(self) -> bytes | None:
        """SUM, if rx has told its digest since `check` was called last."""
        return None if self.own is None or self._theirs is None else encode_control(Kind.SUM, payload=self.own.value())

    def check(self) -> None:
        """rx has been answered. IntegrityError if the digests differ; then `answer` stays: every leg shall hear it."""
        if self.own is not None and self._theirs is not None:
            compare(self.own, self._theirs)
            self.compared, self._theirs = True, None


class Verification:
    """rx's side of comparing. When all was written it asks with DIGEST, again and again, until SUM has come."""

    def __init__(self, features: int) -> None:
        self.features = features  # of the session
        self.own = agreed(features)  # to be given what the output accepts; None: no digest is taken
        self.verified = self.own is None
        self.asking = False

    def question(self, written: int) -> bytes | None:
        """DIGEST, while the answer is waited for. `written`: the length of the stream."""
        if not self.asking or self.verified or self.own is None:
            return None
        return encode_control(Kind.DIGEST, offset=written, payload=self.own.value())

    def on_sum_untrusted(self, theirs: bytes) -> None:
        """tx has answered. FrameError: it was not asked. IntegrityError: it has sent something else."""
        if self.own is None or not self.asking:
            raise FrameError("a digest that nobody has asked for")
        compare(self.own, theirs)
        self.verified = True


def compare(own: StreamDigest, theirs: bytes) -> None:
    """IntegrityError if they are not the same."""
    if theirs != own.value():
        raise IntegrityError(f"the digests differ: {own} here, {theirs.hex()} on the other side")
