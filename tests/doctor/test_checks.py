"""Every check on a host where all is well, on one where it is not, and on one that does not tell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.hosts import ETH0, ETH1, LIMITS, host, interface
from viamillipede.config import KIB, MIB
from viamillipede.doctor import checks, machine, network
from viamillipede.doctor.checks import PIPES, TCP, Check
from viamillipede.doctor.finding import Finding, State
from viamillipede.doctor.host import Host
from viamillipede.doctor.machine import MACHINE
from viamillipede.doctor.network import NETWORK

ALL = (*MACHINE, *PIPES, *TCP, *NETWORK)
GROUP = "/sys/fs/cgroup/system.slice/job.service"
SETTINGS = "/proc/sys/net/ipv4"


@dataclass(frozen=True)
class Bad:
    """What is wrong with the host, and what must be said of it."""

    check: Check
    changes: Mapping[str, str | None]
    state: State
    value: str  # part of the value that is told
    mend: str = ""  # the whole first command
    kept: str = ""  # the first line that keeps it
    questions: Mapping[str, Any] = field(default_factory=dict)


def setting(name: str, text: str) -> dict[str, str | None]:
    """One file of the kernel's settings."""
    return {f"/proc/sys/{name.replace('.', '/')}": text}


BAD = [
    Bad(
        checks.pipe_size, setting("fs.pipe-max-size", "65536"), State.LIMITS, "64.0 KiB at most",
        "sysctl -w fs.pipe-max-size=1048576", "fs.pipe-max-size = 1048576",
    ),
    Bad(
        checks.pipe_size, {}, State.LIMITS, "64.0 KiB now",
        "sysctl -w fs.pipe-user-pages-soft=65536", "fs.pipe-user-pages-soft = 65536",
        {"largest_pipe_bytes": lambda: 64 * KIB},
    ),
    Bad(
        checks.pipe_memory, setting("fs.pipe-user-pages-soft", "16"), State.LIMITS, "64.0 KiB in all",
        "sysctl -w fs.pipe-user-pages-soft=65536", "fs.pipe-user-pages-soft = 65536",
    ),
    Bad(checks.splicing, {}, State.NOTE, "not here", questions={"splice_works": lambda: False}),
    Bad(
        checks.descriptors, {"/proc/self/limits": LIMITS.format(soft=64, hard=128)}, State.LIMITS, "128",
        "ulimit -n 4096", "* - nofile 4096",
    ),
    Bad(
        checks.descriptors, {"/proc/self/limits": LIMITS.format(soft=64, hard=1024)}, State.NOTE, "1024",
        "ulimit -n 4096", "* - nofile 4096",
    ),
    Bad(
        checks.send_buffer, setting("net.ipv4.tcp_wmem", "4096 16384 262144"), State.LIMITS, "256.0 KiB at most",
        "sysctl -w net.ipv4.tcp_wmem='4096 16384 33554432'", "net.ipv4.tcp_wmem = 4096 16384 33554432",
    ),
    Bad(
        checks.send_buffer, setting("net.ipv4.tcp_wmem", "4096 16384 4194304"), State.NOTE, "4.0 MiB at most",
        "sysctl -w net.ipv4.tcp_wmem='4096 16384 33554432'", "net.ipv4.tcp_wmem = 4096 16384 33554432",
    ),
    Bad(
        checks.receive_buffer, setting("net.ipv4.tcp_rmem", "8192 65536 131072"), State.LIMITS, "128.0 KiB at most",
        "sysctl -w net.ipv4.tcp_rmem='8192 65536 33554432'", "net.ipv4.tcp_rmem = 8192 65536 33554432",
    ),
    Bad(
        checks.tcp_memory, {"/proc/net/sockstat": "TCP: inuse 5 mem 190000"}, State.LIMITS, "742.2 MiB of 781.2 MiB",
        "sysctl -w net.ipv4.tcp_mem='200000 400000 600000'", "net.ipv4.tcp_mem = 200000 400000 600000",
    ),
    Bad(
        checks.congestion, setting("net.ipv4.tcp_available_congestion_control", "reno cubic"), State.NOTE, "cubic",
        "modprobe tcp_bbr", "tcp_bbr",
    ),
    Bad(
        checks.congestion, setting("net.ipv4.tcp_allowed_congestion_control", "reno cubic"), State.NOTE, "cubic",
        "sysctl -w net.ipv4.tcp_allowed_congestion_control='reno cubic bbr'",
        "net.ipv4.tcp_allowed_congestion_control = reno cubic bbr",
    ),
    Bad(
        checks.switches, setting("net.ipv4.tcp_window_scaling", "0"), State.LIMITS, "off",
        "sysctl -w net.ipv4.tcp_window_scaling=1", "net.ipv4.tcp_window_scaling = 1",
    ),
    Bad(
        checks.switches, setting("net.ipv4.tcp_moderate_rcvbuf", "0"), State.LIMITS, "off",
        "sysctl -w net.ipv4.tcp_moderate_rcvbuf=1", "net.ipv4.tcp_moderate_rcvbuf = 1",
    ),
    Bad(
        checks.switches, setting("net.ipv4.tcp_sack", "0"), State.LIMITS, "off",
        "sysctl -w net.ipv4.tcp_sack=1", "net.ipv4.tcp_sack = 1",
    ),
    Bad(
        checks.switches, setting("net.ipv4.tcp_timestamps", "0"), State.NOTE, "off",
        "sysctl -w net.ipv4.tcp_timestamps=1", "net.ipv4.tcp_timestamps = 1",
    ),
    Bad(
        checks.switches, setting("net.ipv4.tcp_slow_start_after_idle", "1"), State.NOTE, "on",
        "sysctl -w net.ipv4.tcp_slow_start_after_idle=0", "net.ipv4.tcp_slow_start_after_idle = 0",
    ),
    Bad(
        checks.backlog, setting("net.core.somaxconn", "16"), State.NOTE, "16",
        "sysctl -w net.core.somaxconn=4096", "net.core.somaxconn = 4096",
    ),
    Bad(
        checks.queue_discipline, setting("net.core.default_qdisc", "pfifo_fast"), State.NOTE, "pfifo_fast",
        "sysctl -w net.core.default_qdisc=fq", "net.core.default_qdisc = fq",
    ),
    Bad(
        checks.ports, setting("net.ipv4.ip_local_port_range", "60000 60999"), State.NOTE, "1000",
        "sysctl -w net.ipv4.ip_local_port_range='32768 60999'", "net.ipv4.ip_local_port_range = 32768 60999",
    ),
    Bad(
        checks.connection_tracking, setting("net.netfilter.nf_conntrack_count", "250000"), State.LIMITS,
        "250000 of 262144", "sysctl -w net.netfilter.nf_conntrack_max=524288",
        "net.netfilter.nf_conntrack_max = 524288",
    ),
    Bad(
        network.mtu, {f"{ETH0}/mtu": "576"}, State.LIMITS, "576",
        "ip link set dev eth0 mtu 1500", "[Link] MTUBytes=1500",
    ),
    Bad(
        network.mtu, {f"{ETH0}/speed": "10000"}, State.NOTE, "1500",
        "ip link set dev eth0 mtu 9000", "[Link] MTUBytes=9000",
    ),
    Bad(
        network.mtu_mismatch, interface(ETH1, mtu=9000), State.NOTE, "eth0 1500, eth1 9000",
        "ip link set dev eth0 mtu 9000", "[Link] MTUBytes=9000",
    ),
    Bad(
        network.mtu_probing, {f"{ETH0}/mtu": "1400"} | setting("net.ipv4.tcp_mtu_probing", "0"), State.NOTE, "off",
        "sysctl -w net.ipv4.tcp_mtu_probing=1", "net.ipv4.tcp_mtu_probing = 1",
    ),
    Bad(
        network.speed, {f"{ETH0}/speed": "100"}, State.LIMITS, "100 Mbit/s",
        "ethtool -s eth0 autoneg on", "[Link] AutoNegotiation=yes",
    ),
    Bad(
        network.speed, {f"{ETH0}/duplex": "half"}, State.LIMITS, "half duplex",
        "ethtool -s eth0 autoneg on", "[Link] AutoNegotiation=yes",
    ),
    Bad(
        network.driver, {}, State.NOTE, "tso, gro off",
        "ethtool -K eth0 tso on gro on", "[Link] TCPSegmentationOffload=yes",
        {"offloads": lambda name: {"tso": False, "gso": True, "gro": False}},
    ),
    Bad(
        network.errors, {f"{ETH0}/statistics/rx_errors": "500"}, State.LIMITS, "500 of 1000000 packets",
        "ethtool -S eth0",
    ),
    Bad(
        network.errors, {f"{ETH0}/statistics/rx_dropped": "500"}, State.NOTE, "500 of 1000000 packets",
        "ethtool -g eth0", "[Link] RxBufferSize=max",
    ),
    Bad(machine.system, setting("kernel.osrelease", "5.15.90.1-microsoft-standard-WSL2"), State.NOTE, "WSL2"),
    Bad(machine.system, {}, State.NOTE, "darwin", questions={"system": "darwin"}),
    Bad(machine.processors, {"/proc/self/status": "Cpus_allowed_list:\t3"}, State.NOTE, "1", "taskset -pc 0-3 $$"),
    Bad(machine.processor_features, {"/proc/cpuinfo": "flags : fpu sse2 avx2"}, State.NOTE, "no aes, avx2"),
    Bad(machine.processor_features, {"/proc/cpuinfo": "flags : aes sse2"}, State.NOTE, "aes, sse2"),
    Bad(
        machine.governor, {"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}, State.LIMITS,
        "powersave", "cpupower frequency-set -g performance",
        "w /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor - - - - performance",
    ),
    Bad(
        machine.container_cpu, {f"{GROUP}/cpu.max": "50000 100000"}, State.LIMITS, "0.5 processors",
        "systemctl set-property UNIT CPUQuota=200%", "CPUQuota=200%",
    ),
    Bad(
        machine.container_cpu, {"/sys/fs/cgroup/system.slice/cpu.max": "100000 100000"}, State.NOTE, "1 processor",
        "systemctl set-property UNIT CPUQuota=200%", "CPUQuota=200%",
    ),
    Bad(
        machine.memory, {"/proc/meminfo": "MemAvailable: 98304 kB"}, State.LIMITS, "96.0 MiB",
        "export VIAMILLIPEDE_WINDOW=16M", "window 16M",
    ),
    Bad(machine.memory, {"/proc/meminfo": "MemAvailable: 204800 kB"}, State.NOTE, "200.0 MiB"),
    Bad(
        machine.container_memory, {f"{GROUP}/memory.max": str(100 * MIB)}, State.LIMITS, "99.0 MiB left of 100.0 MiB",
        "export VIAMILLIPEDE_WINDOW=16M", "window 16M",
    ),
]  # fmt: skip

# Which files must be gone for a check not to know, and the names of what is unknown then.
MISSING: list[tuple[Callable[..., object], dict[str, str | None], list[str]]] = [
    (checks.pipe_size, {"/proc/sys/fs/pipe-max-size": None}, ["pipe size"]),
    (checks.pipe_memory, {"/proc/sys/fs/pipe-user-pages-soft": None}, ["pipes of a user"]),
    (checks.descriptors, {"/proc/self/limits": None}, ["descriptors"]),
    (checks.descriptors, {"/proc/self/limits": "Max open files nonsense"}, ["descriptors"]),
    (checks.send_buffer, {f"{SETTINGS}/tcp_wmem": None}, ["send buffer"]),
    (checks.send_buffer, {f"{SETTINGS}/tcp_wmem": "4096 some 9"}, ["send buffer"]),
    (checks.receive_buffer, {f"{SETTINGS}/tcp_rmem": None}, ["receive buffer"]),
    (checks.other_buffers, {"/proc/sys/net/core/rmem_max": None}, ["rmem, wmem max"]),
    (checks.tcp_memory, {f"{SETTINGS}/tcp_mem": None}, ["memory of TCP"]),
    (checks.tcp_memory, {"/proc/net/sockstat": "TCP: inuse 5"}, ["memory of TCP"]),
    (checks.congestion, {f"{SETTINGS}/tcp_congestion_control": None}, ["congestion"]),
    (checks.congestion, {f"{SETTINGS}/tcp_available_congestion_control": None}, ["congestion"]),
    (checks.switches, {f"{SETTINGS}/tcp_sack": None}, ["selective acks"]),
    (checks.backlog, {"/proc/sys/net/core/somaxconn": None}, ["listen backlog"]),
    (checks.queue_discipline, {"/proc/sys/net/core/default_qdisc": None}, ["queueing"]),
    (checks.ports, {f"{SETTINGS}/ip_local_port_range": None}, ["local ports"]),
    (checks.connection_tracking, {"/proc/sys/net/netfilter/nf_conntrack_max": None}, ["conntrack"]),
    (network.mtu, {f"{ETH0}/mtu": None}, ["MTU eth0"]),
    (network.mtu, {f"{ETH0}/operstate": "down"}, ["MTU"]),
    (network.mtu_mismatch, {f"{ETH0}/mtu": None}, ["MTU, all"]),
    (network.mtu_probing, {f"{SETTINGS}/tcp_mtu_probing": None}, ["MTU probing"]),
    (network.speed, {f"{ETH0}/speed": "-1"}, ["speed eth0"]),
    (network.speed, {f"{ETH0}/speed": None}, ["speed eth0"]),
    (network.speed, {f"{ETH0}/device/vendor": None}, ["speed eth0"]),  # virtual: what it says is made up
    (network.speed, {f"{ETH0}/flags": "0x1002"}, ["speed"]),
    (network.driver, {f"{ETH0}/flags": "nonsense"}, ["offloads"]),
    (network.errors, {f"{ETH0}/statistics/tx_dropped": None}, ["errors eth0"]),
    (machine.system, {"/proc/sys/kernel/osrelease": None}, ["system"]),
    (machine.processors, {"/proc/self/status": None}, ["processors"]),
    (machine.processors, {"/proc/self/status": "Cpus_allowed_list: all"}, ["processors"]),
    (machine.processor_features, {"/proc/cpuinfo": "processor: 0"}, ["instructions"]),
    (machine.governor, {"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": None}, ["governor"]),
    (machine.container_cpu, {"/proc/self/cgroup": None}, ["share of CPU"]),
    (machine.container_cpu, {"/sys/fs/cgroup/cgroup.controllers": None}, ["share of CPU"]),
    (machine.memory, {"/proc/meminfo": "MemTotal: 5 kB"}, ["free memory"]),
    (machine.container_memory, {"/proc/self/cgroup": None}, ["memory limit"]),
]

# What limits nothing, although it is not what the host above has.
ALSO_FINE: list[tuple[Check, dict[str, str | None], str]] = [
    (checks.pipe_memory, setting("fs.pipe-user-pages-soft", "0"), "no limit"),
    (checks.congestion, setting("net.ipv4.tcp_congestion_control", "bbr"), "bbr"),
    (checks.switches, setting("net.ipv4.tcp_timestamps", "2"), "on"),
    (checks.descriptors, {"/proc/self/limits": LIMITS.format(soft=1024, hard="unlimited")}, "unlimited"),
    (
        checks.connection_tracking,
        {f"/proc/sys/net/netfilter/nf_conntrack_{each}": None for each in ("count", "max")},
        "not in use",
    ),
    (network.mtu, {f"{ETH0}/mtu": "1400"}, "1400"),
    (network.mtu, {f"{ETH0}/mtu": "9000", f"{ETH0}/speed": "10000"}, "9000"),
    (network.mtu_mismatch, {**interface(ETH1, operstate="down", mtu=9000)}, "the same"),
    (network.mtu_probing, setting("net.ipv4.tcp_mtu_probing", "0"), "off"),
    (network.errors, {f"{ETH0}/statistics/rx_errors": "50"}, "50 of 1000000"),
    (
        machine.governor,
        {
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate",
        },
        "powersave",
    ),
    (machine.processor_features, {"/proc/cpuinfo": "Features : fp asimd aes"}, "aes, asimd"),
    (machine.container_cpu, {f"{GROUP}/cpu.max": None}, "no limit"),
    (
        machine.container_cpu,
        {f"{GROUP}/cpu.max": "800000 100000", "/sys/fs/cgroup/system.slice/cpu.max": "300000 100000"},
        "3 processors",
    ),
    (machine.container_cpu, {f"{GROUP}/cpu.max": "400000 100000"}, "4 processors"),
    (
        machine.container_memory,
        {f"{GROUP}/memory.max": str(1024 * MIB), f"{GROUP}/memory.current": str(1000 * MIB),
         f"{GROUP}/memory.stat": f"anon 5\ninactive_file {900 * MIB}"},
        "924.0 MiB left of 1.0 GiB",
    ),
]  # fmt: skip


def first(findings: list[Finding]) -> Finding:
    """The one that is not fine, or the first."""
    return next((each for each in findings if each.state is not State.OK), findings[0])


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_nothing_is_said_against_a_host_that_is_fine(tmp_path: Path, check: Check) -> None:
    found = check(host(tmp_path))
    assert found
    for each in found:
        assert each.state is State.OK and each.value and each.why and not each.mend and not each.keep, each


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case.check.__name__}-{case.value}")
def test_what_limits_is_told_with_the_command_that_mends_it(tmp_path: Path, case: Bad) -> None:
    found = first(list(case.check(host(tmp_path, case.changes, **case.questions))))
    assert found.state is case.state
    assert case.value in found.value and found.why
    assert "".join(found.mend[:1]) == case.mend
    assert "".join(each.line for each in found.keep[:1]) == case.kept


@pytest.mark.parametrize(("check", "changes", "names"), MISSING, ids=lambda each: getattr(each, "__name__", ""))
def test_what_cannot_be_read_is_unknown(
    tmp_path: Path, check: Check, changes: dict[str, str | None], names: list[str]
) -> None:
    found = check(host(tmp_path, changes))
    assert [each.name for each in found if each.state is State.UNKNOWN] == names
    assert all(each.state in (State.OK, State.UNKNOWN) and not each.mend for each in found)


@pytest.mark.parametrize(("check", "changes", "value"), ALSO_FINE, ids=lambda each: getattr(each, "__name__", ""))
def test_what_limits_nothing_is_fine(tmp_path: Path, check: Check, changes: dict[str, str | None], value: str) -> None:
    found = check(host(tmp_path, changes))
    assert all(each.state is State.OK for each in found) and any(value in each.value for each in found), found


def test_each_check_has_a_bad_and_a_missing_case() -> None:
    never_bad = {checks.other_buffers}  # it says that they do not matter
    never_missing = {checks.splicing}  # it tries
    assert {case.check for case in BAD} == set(ALL) - never_bad
    assert {check for check, _, _ in MISSING} == set(ALL) - never_missing


def test_a_host_that_tells_nothing_is_not_guessed_at(tmp_path: Path) -> None:
    empty = Host(tmp_path, "darwin", 4096, lambda: None, lambda: False, lambda name: None)
    told = [found for check in ALL for found in check(empty) if found.state is not State.UNKNOWN]
    assert [found.name for found in told] == ["system", "splice"]


def test_version_1_of_control_groups(tmp_path: Path) -> None:
    old = {
        "/proc/self/cgroup": "4:memory:/job\n2:cpu,cpuacct:/job\n0::/",
        "/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "150000",
        "/sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
        "/sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(100 * MIB),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": str((1 << 63) - 4096),
    }
    made = host(tmp_path, old)
    assert [each.value for each in machine.container_cpu(made)] == ["1.5 processors"]
    assert [each.value for each in machine.container_memory(made)] == ["100.0 MiB left of 100.0 MiB"]


def test_an_interface_without_a_device_counts_only_where_the_default_route_goes(tmp_path: Path) -> None:
    veth = interface("/sys/class/net/veth1") | {"/sys/class/net/veth1/device/vendor": None}
    route = "Iface\tDestination\tGateway\neth0\t00000000\t01\nveth1\t0000A8C0\t00\n"
    assert host(tmp_path / "one", veth | {"/proc/net/route": route}).interfaces() == ["eth0"]
    route = "Iface\tDestination\tGateway\nveth1\t00000000\t01\n"
    assert host(tmp_path / "two", veth | {"/proc/net/route": route}).interfaces() == ["eth0", "veth1"]
