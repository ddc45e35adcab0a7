"""Pipes, descriptors and TCP on this host: one function per check, from a Host to what it found.

Nothing is guessed: what cannot be read is unknown. The thresholds say what they are made from.
"""

from collections.abc import Callable, Sequence

from viamillipede.aio.descriptors import PIPE_BYTES
from viamillipede.config import KIB, MIB, MS_US, S_US, SETUPS_MAX, THREADS_AUTO_MAX, THREADS_MAX
from viamillipede.doctor.finding import Finding, Keep, State, fine, sysctl, unknown
from viamillipede.doctor.host import Host
from viamillipede.doctor.words import format_bits
from viamillipede.units import format_bytes

Check = Callable[[Host], Sequence[Finding]]

PIPES_LEAST = 16  # pipes of full size that a user should be able to have: a few transfers, and what they run
PIPES_ADVISED = 256
PAGES = "fs.pipe-user-pages-soft"
LONG_US = 100 * MS_US  # the round trip for which buffers are judged
PAYLOAD_PERCENT = {"sends": 80, "receives": 50}  # of a buffer; the kernel counts its own bookkeeping too
BUFFER_BYTES_LEAST = 1 * MIB  # one leg then carries some 40 Mbit/s over the long round trip
BUFFER_BYTES_WANTED = 16 * MIB  # eight legs, which is what `auto` starts with, then hold the default window
BUFFER_BYTES_ADVISED = 32 * MIB
SPARE_FDS = 64  # for all that is no leg
FDS_AUTO = 2 * THREADS_AUTO_MAX + SPARE_FDS  # a leg, and the one that takes its place
FDS_MOST = 2 * THREADS_MAX + SPARE_FDS
FDS_ADVISED = 4096
PORTS_LEAST = 4 * THREADS_MAX  # the legs of a transfer, and of those before it, whose ports rest for a minute
BACKLOG_LEAST = 8 * SETUPS_MAX
PACING_QDISCS = ("fq", "fq_codel", "cake", "noqueue", "mq")


def pipe_size(host: Host) -> list[Finding]:
    """How large one pipe can be."""
    name, why = "pipe size", "as much goes at once between pipe and socket"
    most, now = host.sysctl_number("fs.pipe-max-size"), host.largest_pipe_bytes()
    if most is None:
        return [unknown(name, "/proc/sys/fs/pipe-max-size cannot be read")]
    if most < PIPE_BYTES:
        mend, keep = sysctl("fs.pipe-max-size", PIPE_BYTES)
        why = f"{why}; {format_bytes(PIPE_BYTES)} is best"
        return [Finding(name, f"{format_bytes(most)} at most", State.LIMITS, why, mend, keep)]
    if now is not None and now < PIPE_BYTES:
        advised = max(PIPES_ADVISED * PIPE_BYTES // host.page_bytes, 4 * (host.sysctl_number(PAGES) or 0))
        mend, keep = sysctl(PAGES, advised)
        why = f"{why}; this user's pipes have used up what all of them may hold"
        return [Finding(name, f"{format_bytes(now)} now", State.LIMITS, why, mend, keep)]
    return [fine(name, format_bytes(PIPE_BYTES if now is None else now), why)]


def pipe_memory(host: Host) -> list[Finding]:
    """How much all pipes of a user may hold before the next ones are small."""
    name, pages = "pipes of a user", host.sysctl_number(PAGES)
    if pages is None:
        return [unknown(name, "/proc/sys/fs/pipe-user-pages-soft cannot be read")]
    if not pages:
        return [fine(name, "no limit", "all of them may be large")]
    room, wanted = pages * host.page_bytes, PIPES_LEAST * PIPE_BYTES
    value, why = f"{format_bytes(room)} in all", "beyond it a user's pipes are tiny"
    if room >= wanted:
        return [fine(name, value, why)]
    mend, keep = sysctl(PAGES, PIPES_ADVISED * PIPE_BYTES // host.page_bytes)
    return [Finding(name, value, State.LIMITS, why, mend, keep)]


def _buffer(host: Host, name: str, setting: str, side: str) -> list[Finding]:
    sizes = host.sysctl_numbers(setting)
    if sizes is None or len(sizes) != 3:
        return [unknown(name, f"{setting} cannot be read")]
    least, usual, most = sizes
    rate = most * PAYLOAD_PERCENT[side] / 100 * S_US / LONG_US
    value = f"{format_bytes(most)} at most"
    why = (
        f"a leg {side} up to {format_bits(rate)} over 100 ms, "
        f"{THREADS_AUTO_MAX} legs {format_bits(THREADS_AUTO_MAX * rate)}"
    )
    if most >= BUFFER_BYTES_WANTED:
        return [fine(name, value, why)]
    mend, keep = sysctl(setting, f"{least} {usual} {BUFFER_BYTES_ADVISED}")
    return [Finding(name, value, State.LIMITS if most < BUFFER_BYTES_LEAST else State.NOTE, why, mend, keep)]


def send_buffer(host: Host) -> list[Finding]:
    """What a leg may have on its way, at tx."""
    return _buffer(host, "send buffer", "net.ipv4.tcp_wmem", "sends")


def receive_buffer(host: Host) -> list[Finding]:
    """What a leg may have on its way, at rx."""
    return _buffer(host, "receive buffer", "net.ipv4.tcp_rmem", "receives")


def other_buffers(host: Host) -> list[Finding]:
    """What programs that set their own buffers are limited by; often raised in vain."""
    name = "rmem, wmem max"
    sizes = [host.sysctl_number(f"net.core.{each}") for each in ("rmem_max", "wmem_max")]
    if None in sizes:
        return [unknown(name, "net.core.rmem_max and wmem_max cannot be read")]
    value = ", ".join(format_bytes(size or 0) for size in sizes)
    return [fine(name, value, "of no matter: legs let the kernel choose")]


def tcp_memory(host: Host) -> list[Finding]:
    """How near all connections together are to where the kernel makes buffers smaller."""
    name, limits = "memory of TCP", host.sysctl_numbers("net.ipv4.tcp_mem")
    words = host.table("/proc/net/sockstat").get("TCP", "").split()
    used = dict(zip(words[::2], words[1::2], strict=False)).get("mem", "")
    if limits is None or len(limits) != 3 or not used.isdigit():
        return [unknown(name, "tcp_mem and /proc/net/sockstat cannot be read")]
    pressure = limits[1] * host.page_bytes
    value = f"{format_bytes(int(used) * host.page_bytes)} of {format_bytes(pressure)}"
    why = "beyond that the kernel shrinks every buffer"
    if 4 * int(used) < 3 * limits[1]:
        return [fine(name, value, why)]
    mend, keep = sysctl("net.ipv4.tcp_mem", " ".join(str(2 * limit) for limit in limits))
    return [Finding(name, value, State.LIMITS, why, mend, keep)]


def congestion(host: Host) -> list[Finding]:
    """The algorithm that decides how fast a leg sends, and whether bbr can be had."""
    name, used = "congestion", host.sysctl("net.ipv4.tcp_congestion_control")
    available = host.sysctl("net.ipv4.tcp_available_congestion_control")
    allowed = host.sysctl("net.ipv4.tcp_allowed_congestion_control")
    if used is None or available is None:
        return [unknown(name, "net.ipv4.tcp_congestion_control cannot be read")]
    if used == "bbr":
        return [fine(name, used, "a loss does not make it slow")]
    if "bbr" not in available.split():
        why = "losses make its legs slow; bbr is not loaded, 'congestion bbr' on tx would need it"
        loaded = Keep("/etc/modules-load.d/viamillipede.conf", "tcp_bbr")
        return [Finding(name, used, State.NOTE, why, ("modprobe tcp_bbr",), (loaded,))]
    if allowed is not None and "bbr" not in allowed.split():
        mend, keep = sysctl("net.ipv4.tcp_allowed_congestion_control", f"{allowed} bbr")
        return [Finding(name, used, State.NOTE, "losses make its legs slow; bbr is for root only", mend, keep)]
    return [fine(name, used, "where packets get lost, say 'congestion bbr' on tx")]


# Settings that are on or off: name, setting, its best value, the state otherwise, why.
SWITCHES: tuple[tuple[str, str, int, State, str], ...] = (
    ("window scaling", "net.ipv4.tcp_window_scaling", 1, State.LIMITS, "else 64 KiB per leg and round trip"),
    ("buffer tuning", "net.ipv4.tcp_moderate_rcvbuf", 1, State.LIMITS, "else receive buffers stay small"),
    ("selective acks", "net.ipv4.tcp_sack", 1, State.LIMITS, "else each lost packet costs a round trip"),
    ("timestamps", "net.ipv4.tcp_timestamps", 1, State.NOTE, "else round trips are known less well"),
    ("slow restart", "net.ipv4.tcp_slow_start_after_idle", 0, State.NOTE, "a leg that paused begins slowly again"),
)  # fmt: skip


def switches(host: Host) -> list[Finding]:
    """What is on or off in the kernel's TCP."""
    found = []
    for name, setting, best, state, why in SWITCHES:
        value = host.sysctl_number(setting)
        if value is None:
            found.append(unknown(name, f"{setting} cannot be read"))
        elif value == best or (best and value):  # timestamps may be 2, too: on, without an offset
            found.append(fine(name, "on" if value else "off", why))
        else:
            found.append(Finding(name, "on" if value else "off", state, why, *sysctl(setting, best)))
    return found


def backlog(host: Host) -> list[Finding]:
    """How many new legs may wait for rx to take them."""
    name, most = "listen backlog", host.sysctl_number("net.core.somaxconn")
    if most is None:
        return [unknown(name, "net.core.somaxconn cannot be read")]
    why = "legs beyond it come a second late"
    if most >= BACKLOG_LEAST:
        return [fine(name, str(most), why)]
    return [Finding(name, str(most), State.NOTE, why, *sysctl("net.core.somaxconn", 4096))]


def queue_discipline(host: Host) -> list[Finding]:
    """What new interfaces queue with."""
    name, used = "queueing", host.sysctl("net.core.default_qdisc")
    if used is None:
        return [unknown(name, "net.core.default_qdisc cannot be read")]
    if used in PACING_QDISCS:
        return [fine(name, used, "legs do not queue behind each other")]
    mend, keep = sysctl("net.core.default_qdisc", "fq")
    mend += tuple(f"tc qdisc replace dev {each} root fq" for each in host.interfaces())
    return [Finding(name, used, State.NOTE, "all legs in one queue; fq sends them evenly", mend, keep)]


def descriptors(host: Host) -> list[Finding]:
    """How many legs the limit on descriptors lets us have; the program takes what the hard limit allows."""
    name = "descriptors"
    row = [line for line in (host.text("/proc/self/limits") or "").splitlines() if line.startswith("Max open files")]
    words = row[0].split() if row else []
    if len(words) < 5 or not all(word.isdigit() or word == "unlimited" for word in words[3:5]):
        return [unknown(name, "/proc/self/limits cannot be read")]
    hard = 1 << 30 if words[4] == "unlimited" else int(words[4])
    legs = max(0, min(THREADS_MAX, (hard - SPARE_FDS) // 2))
    why = f"enough for {legs} legs"
    if hard >= FDS_MOST:
        return [fine(name, words[4], why)]
    keep = (
        Keep("/etc/security/limits.d/90-viamillipede.conf", f"* - nofile {FDS_ADVISED}"),
        Keep("the [Service] section of a systemd unit", f"LimitNOFILE={FDS_ADVISED}"),
    )
    state = State.LIMITS if hard < FDS_AUTO else State.NOTE
    why += " only" if state is State.LIMITS else f", of {THREADS_MAX} that may be asked for"
    return [Finding(name, words[4], state, why, (f"ulimit -n {FDS_ADVISED}",), keep)]


def ports(host: Host) -> list[Finding]:
    """How many connections can be opened to one address."""
    name, limits = "local ports", host.sysctl_numbers("net.ipv4.ip_local_port_range")
    if limits is None or len(limits) != 2:
        return [unknown(name, "net.ipv4.ip_local_port_range cannot be read")]
    count, why = limits[1] - limits[0] + 1, "each leg takes one, and for a minute after"
    if count >= PORTS_LEAST:
        return [fine(name, str(count), why)]
    return [Finding(name, str(count), State.NOTE, why, *sysctl("net.ipv4.ip_local_port_range", "32768 60999"))]


def connection_tracking(host: Host) -> list[Finding]:
    """Whether the firewall's table of connections is nearly full."""
    name = "conntrack"
    used = host.sysctl_number("net.netfilter.nf_conntrack_count")
    most = host.sysctl_number("net.netfilter.nf_conntrack_max")
    if not host.exists("/proc/sys/net"):
        return [unknown(name, "/proc/sys/net cannot be read")]
    if used is None and most is None:
        return [fine(name, "not in use", "no table that could be full")]
    if used is None or not most:
        return [unknown(name, "net.netfilter.nf_conntrack_count and _max cannot be read")]
    value, why = f"{used} of {most}", "when it is full, new legs are dropped"
    if 5 * used < 4 * most:
        return [fine(name, value, why)]
    return [Finding(name, value, State.LIMITS, why, *sysctl("net.netfilter.nf_conntrack_max", 2 * most))]


def splicing(host: Host) -> list[Finding]:
    """Whether rx moves bytes without touching them."""
    name, why = "splice", "rx moves bytes without touching them"
    if host.splice_works():
        return [fine(name, "works", why)]
    return [Finding(name, "not here", State.NOTE, f"rx copies each byte twice; with it {why}")]


PIPES: tuple[Check, ...] = (pipe_size, pipe_memory, splicing, descriptors)
TCP: tuple[Check, ...] = (
    send_buffer,
    receive_buffer,
    other_buffers,
    tcp_memory,
    congestion,
    switches,
    backlog,
    queue_discipline,
    ports,
    connection_tracking,
)
assert KIB < BUFFER_BYTES_LEAST < BUFFER_BYTES_WANTED <= BUFFER_BYTES_ADVISED and FDS_AUTO < FDS_MOST <= FDS_ADVISED
