"""Every way a transfer can end, on one page.

Two families. `PeerError` and its children are the other host's doing: they cost a leg, never the
session. `Failure` and its children end the program; each carries the exit status that the manual
promises. What is neither is a bug of ours and exits 1.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses, one class of outcome each (viamillipede.1, EXIT STATUS)."""

    COMPLETE = 0
    UNEXPECTED = 1
    USAGE = 2
    NO_CONTACT = 3
    REFUSED = 4
    PEER_LOST = 5
    INTEGRITY = 6
    LOCAL_IO = 7
    REMOTE_FAILED = 8
    LIMIT = 9
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class PeerError(Exception):
    """A leg said something that the protocol does not allow; that leg dies."""


class FrameError(PeerError):
    """A header or control message that cannot be true. The only error the wire parsers raise."""


class Failure(Exception):
    """The transfer cannot go on. `exit_status` tells the caller which kind of outcome it was."""

    exit_status = Exit.UNEXPECTED
    told = False  # it was said already: nobody need say it again


class UsageError(Failure):
    """The command line, or the environment, asks for something that cannot be done."""

    exit_status = Exit.USAGE


class NoContact(Failure):
    """The address cannot be bound, or the other side could not be reached in time."""

    exit_status = Exit.NO_CONTACT


class SessionRefused(Failure):
    """The other side refused us for good: another checkphrase, another version, or the role that we have."""

    exit_status = Exit.REFUSED


class PeerLost(Failure):
    """The other process died, or the network stayed down longer than allowed. Worth a retry."""

    exit_status = Exit.PEER_LOST


class IntegrityError(Failure):
    """What arrived contradicts what was announced, and sending again cannot mend it."""

    exit_status = Exit.INTEGRITY


class LocalIOError(Failure):
    """Our own input or output failed: the reader went away, the disk is full."""

    exit_status = Exit.LOCAL_IO


class RemoteFailed(Failure):
    """The other side gave up and told us why."""

    exit_status = Exit.REMOTE_FAILED


class LimitReached(Failure):
    """A limit that the user set has been reached."""

    exit_status = Exit.LIMIT


class HungUp(Failure):
    """SIGHUP arrived."""

    exit_status = Exit.HUNG_UP


class Interrupted(Failure):
    """SIGINT arrived."""

    exit_status = Exit.INTERRUPTED


class Terminated(Failure):
    """SIGTERM arrived."""

    exit_status = Exit.TERMINATED
