"""The machine: processors, memory, and what a container or a virtual machine leaves of them."""

from viamillipede.config import MIB, WINDOW_BYTES_DEFAULT
from viamillipede.doctor.checks import Check
from viamillipede.doctor.finding import Finding, Keep, State, fine, unknown
from viamillipede.doctor.host import Host
from viamillipede.units import format_bytes, spell_size

CPU = "/sys/devices/system/cpu"
GROUPS = "/sys/fs/cgroup"
BESIDES_BYTES = 64 * MIB  # what a process needs besides its window, at most
NEEDS_BYTES = WINDOW_BYTES_DEFAULT + BESIDES_BYTES
CPUS_LEAST = 2  # the program, and the command beside it
GOVERNORS = ("performance", "schedutil", "ondemand", "conservative", "powersave")
DRIVERS_THAT_DECIDE = ("intel_pstate", "amd-pstate-epp")  # with them powersave only means: not always at full speed
_FULL_SPEED = f"w {CPU}/cpu*/cpufreq/scaling_governor - - - - performance"
UNLIMITED_BYTES = 1 << 62  # from here on version 1 of control groups means: no limit


def system(host: Host) -> list[Finding]:
    """What is not Linux, or only in part."""
    if host.system != "linux":
        why = "limits are read from Linux's /proc and /sys: most of them are unknown here"
        return [Finding("system", host.system, State.NOTE, why)]
    release = host.text("/proc/sys/kernel/osrelease")
    if release is None:
        return [unknown("system", "/proc/sys/kernel/osrelease cannot be read")]
    if "microsoft" in release.lower():
        why = "WSL: the network is Windows's, whose limits cannot be seen from here"
        return [Finding("system", f"Linux {release}", State.NOTE, why)]
    return [fine("system", f"Linux {release}", "its limits can be read")]


def processors(host: Host) -> list[Finding]:
    """How many processors this process may use."""
    name, allowed = "processors", host.table("/proc/self/status").get("Cpus_allowed_list", "")
    count = 0
    for part in filter(None, allowed.split(",")):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            return [unknown(name, "/proc/self/status has no list of processors")]
        count += int(last or first) - int(first) + 1
    if not count:
        return [unknown(name, "/proc/self/status cannot be read")]
    why = "one for the program, one for kernel and command"
    if count >= CPUS_LEAST:
        return [fine(name, str(count), why)]
    online = host.text(f"{CPU}/online")
    mend = (f"taskset -pc {online} $$",) if online not in (None, "0") else ()
    return [Finding(name, str(count), State.NOTE, why, mend)]


def processor_features(host: Host) -> list[Finding]:
    """Instructions for encryption and for hashes."""
    name, table = "instructions", host.table("/proc/cpuinfo")
    words = (table.get("flags") or table.get("Features") or "").split()
    if not words:
        return [unknown(name, "/proc/cpuinfo does not tell")]
    vector = next((each for each in ("avx512f", "avx2", "sse2", "asimd", "neon") if each in words), "")
    value = ", ".join(filter(None, ("aes" if "aes" in words else "no aes", vector or "no vectors")))
    why = "for encryption and hashes"
    if "aes" in words and vector and vector not in ("sse2", "neon"):
        return [fine(name, value, why)]
    why += "; a virtual machine may hide them: let it have its host's processor type"
    return [Finding(name, value, State.NOTE, why)]


def governor(host: Host) -> list[Finding]:
    """Who decides how fast the processors run."""
    name, folder = "governor", f"{CPU}/cpu0/cpufreq"
    used, by = host.text(f"{folder}/scaling_governor"), host.text(f"{folder}/scaling_driver")
    if used not in GOVERNORS:
        return [unknown(name, f"{folder} does not tell, as in virtual machines")]
    why = "how fast the processors run"
    if used != "powersave" or by in DRIVERS_THAT_DECIDE:
        return [fine(name, used, why)]
    keep = (Keep("/etc/tmpfiles.d/90-viamillipede.conf", _FULL_SPEED),)
    return [Finding(name, used, State.LIMITS, why, ("cpupower frequency-set -g performance",), keep)]


def memory(host: Host) -> list[Finding]:
    """Whether the window fits."""
    name, words = "free memory", host.table("/proc/meminfo").get("MemAvailable", "").split()
    if len(words) != 2 or not words[0].isdigit():
        return [unknown(name, "/proc/meminfo cannot be read")]
    free = int(words[0]) << 10
    return [_against_window(name, free, f"{format_bytes(free)}")]


def _against_window(name: str, room: int, value: str) -> Finding:
    """Whether so many bytes are enough for a process with the default window."""
    why = f"each side holds its window and up to {format_bytes(BESIDES_BYTES)}"
    if room >= 2 * NEEDS_BYTES:
        return fine(name, value, why)
    if room >= NEEDS_BYTES:
        return Finding(name, value, State.NOTE, f"{why}: no room for a larger window than the default")
    window = max(MIB, 1 << (max(0, room - BESIDES_BYTES) // 2).bit_length() - 1)
    mend, keep = f"export VIAMILLIPEDE_WINDOW={spell_size(window)}", f"window {spell_size(window)}"
    return Finding(name, value, State.LIMITS, why, (mend,), (Keep("/etc/viamillipede.conf", keep),))


def _group_folders(host: Host, controller: str) -> list[str] | None:
    """The folders of this process's control group and those above it; None if it cannot be told."""
    lines = (host.text("/proc/self/cgroup") or "").splitlines()
    rows = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    old = [row[2] for row in rows if controller in row[1].split(",")]
    new = [row[2] for row in rows if row[:2] == ["0", ""]]
    if old and host.exists(f"{GROUPS}/{controller}"):
        base, path = f"{GROUPS}/{controller}", old[0]
    elif new and host.exists(f"{GROUPS}/cgroup.controllers"):
        base, path = GROUPS, new[0]
    else:
        return None
    parts = [part for part in path.split("/") if part]
    return ["/".join((base, *parts[:count])) for count in range(len(parts) + 1)]


def container_cpu(host: Host) -> list[Finding]:
    """How much of the processors the control group leaves."""
    name, folders = "share of CPU", _group_folders(host, "cpu")
    if folders is None:
        return [unknown(name, "/proc/self/cgroup and /sys/fs/cgroup do not tell")]
    shares = []
    for folder in folders:
        words = (host.text(f"{folder}/cpu.max") or "").split()
        if not words:  # version 1, or the root, which has no limit
            words = [host.text(f"{folder}/cpu.cfs_{each}_us") or "" for each in ("quota", "period")]
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # else "max", or -1: none
            shares.append(int(words[0]) / int(words[1]))
    why = "used up, the transfer pauses until the next period"
    if not shares:
        return [fine(name, "no limit", "no control group takes any away")]
    least = min(shares)
    value = f"{least:.3g} {'processor' if least == 1 else 'processors'}"
    if least >= CPUS_LEAST:
        return [fine(name, value, why)]
    mend = ("systemctl set-property UNIT CPUQuota=200%", "docker update --cpus 2 CONTAINER")
    keep = (Keep("the [Service] section of a systemd unit", "CPUQuota=200%"),)
    return [Finding(name, value, State.LIMITS if least < 1 else State.NOTE, why, mend, keep)]


def container_memory(host: Host) -> list[Finding]:
    """Whether the window fits into what the control group leaves."""
    name, folders = "memory limit", _group_folders(host, "memory")
    if folders is None:
        return [unknown(name, "/proc/self/cgroup and /sys/fs/cgroup do not tell")]
    limits = []
    for folder in folders:
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, used = host.number(f"{folder}/{limit}"), host.number(f"{folder}/{usage}")
            if most is not None and most < UNLIMITED_BYTES:
                limits.append((max(0, most - (used or 0) + _cached_bytes(host, folder)), most))
    if not limits:
        return [fine(name, "none", "no control group takes any away")]
    left, most = min(limits)
    left = min(left, most)
    return [_against_window(name, left, f"{format_bytes(left)} left of {format_bytes(most)}")]


def _cached_bytes(host: Host, folder: str) -> int:
    """What of a control group's memory are files that can be read again."""
    rows = [line.split() for line in (host.text(f"{folder}/memory.stat") or "").splitlines()]
    counts = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
    return counts.get("total_inactive_file", counts.get("inactive_file", 0))


MACHINE: tuple[Check, ...] = (
    system,
    processors,
    processor_features,
    governor,
    container_cpu,
    memory,
    container_memory,
)
