"""Hosts made of files: one on which nothing limits a transfer, and what a test changes of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viamillipede.config import MIB
from viamillipede.doctor.host import Host

ETH0, ETH1 = "/sys/class/net/eth0", "/sys/class/net/eth1"
_STATISTICS = ("rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")

LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            {soft:<20} {hard:<20} files
"""

FINE: dict[str, str] = {
    "/proc/sys/fs/pipe-max-size": "1048576",
    "/proc/sys/fs/pipe-user-pages-soft": "16384",
    "/proc/self/limits": LIMITS.format(soft=1024, hard=1048576),
    "/proc/sys/net/core/rmem_max": "212992",
    "/proc/sys/net/core/wmem_max": "212992",
    "/proc/sys/net/core/somaxconn": "4096",
    "/proc/sys/net/core/default_qdisc": "fq_codel",
    "/proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t33554432",
    "/proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t33554432",
    "/proc/sys/net/ipv4/tcp_mem": "100000 200000 300000",
    "/proc/net/sockstat": "sockets: used 200\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 1000\nUDP: inuse 1 mem 0",
    "/proc/sys/net/ipv4/tcp_congestion_control": "cubic",
    "/proc/sys/net/ipv4/tcp_available_congestion_control": "reno cubic bbr",
    "/proc/sys/net/ipv4/tcp_allowed_congestion_control": "reno cubic bbr",
    "/proc/sys/net/ipv4/tcp_window_scaling": "1",
    "/proc/sys/net/ipv4/tcp_moderate_rcvbuf": "1",
    "/proc/sys/net/ipv4/tcp_sack": "1",
    "/proc/sys/net/ipv4/tcp_timestamps": "1",
    "/proc/sys/net/ipv4/tcp_slow_start_after_idle": "0",
    "/proc/sys/net/ipv4/tcp_mtu_probing": "1",
    "/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999",
    "/proc/sys/net/netfilter/nf_conntrack_count": "100",
    "/proc/sys/net/netfilter/nf_conntrack_max": "262144",
    "/proc/net/route": "Iface\tDestination\tGateway\neth0\t00000000\t0102A8C0\n",
    "/proc/sys/kernel/osrelease": "6.1.0-18-amd64",
    "/proc/self/status": "Name:\tpython3\nCpus_allowed_list:\t0-2,5",
    "/proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse sse2 aes avx avx2\n\nprocessor\t: 1\n",
    "/proc/meminfo": "MemTotal:  16000000 kB\nMemAvailable:  8000000 kB",
    "/proc/self/cgroup": "0::/system.slice/job.service",
    "/sys/fs/cgroup/cgroup.controllers": "cpu memory",
    "/sys/fs/cgroup/system.slice/job.service/cpu.max": "max 100000",
    "/sys/fs/cgroup/system.slice/job.service/memory.max": "max",
    "/sys/fs/cgroup/system.slice/job.service/memory.current": str(MIB),
    "/sys/devices/system/cpu/online": "0-3",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "acpi-cpufreq",
    "/sys/class/net/lo/flags": "0x9",
    "/sys/class/net/lo/operstate": "unknown",
    "/sys/class/net/lo/mtu": "65536",
}


def interface(folder: str, mtu: int = 1500, mbit: int = 1000, **others: str) -> dict[str, str]:
    """The files of an interface that is up."""
    files = {"flags": "0x1003", "operstate": "up", "mtu": str(mtu), "speed": str(mbit), "duplex": "full"}
    counts = {f"statistics/{each}": "500000" if each.endswith("packets") else "0" for each in _STATISTICS}
    more = {"device/vendor": "0x8086"} | {name.replace("__", "/"): text for name, text in others.items()}
    return {f"{folder}/{name}": text for name, text in (files | counts | more).items()}


FINE |= interface(ETH0)


def host(root: Path, changes: Mapping[str, str | None] | None = None, **questions: Any) -> Host:
    """A host below `root`: FINE, with these files changed or (None) missing; questions: fields of Host."""
    for path, text in (FINE | dict(changes or {})).items():
        if text is not None:
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
    made = Host(
        root=root,
        system="linux",
        page_bytes=4096,
        largest_pipe_bytes=lambda: MIB,
        splice_works=lambda: True,
        offloads=lambda name: {"tso": True, "gso": True, "gro": True},
    )
    return dataclasses.replace(made, **questions)
