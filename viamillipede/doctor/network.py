"""The interfaces of this host that lead somewhere: MTU, speed, what their drivers do, what they lost."""

from viamillipede.doctor.checks import Check
from viamillipede.doctor.finding import Finding, Keep, State, fine, sysctl, unknown
from viamillipede.doctor.host import Host

NET = "/sys/class/net"
MTU_BYTES_LEAST = 1280  # of every link that carries IPv6
MTU_BYTES_USUAL = 1500
MTU_BYTES_JUMBO = 9000
MBIT_JUMBO = 10_000  # from this speed on the packets of usual size cost much processor time
MBIT_LEAST = 1000
BAD_SHARE = 10_000  # one packet in so many lost or damaged here is too much for one leg on a long road
NETWORKD = "the interface's .network file in /etc/systemd/network"
LINKD = "the interface's .link file in /etc/systemd/network"
OFFLOAD_KEYS = {
    "tso": "TCPSegmentationOffload",
    "gso": "GenericSegmentationOffload",
    "gro": "GenericReceiveOffload",
}
NONE = "no interface that is up can be read"


def _none(host: Host, name: str) -> list[Finding]:
    """For a host without interfaces that can be read."""
    return [] if host.interfaces() else [unknown(name, NONE)]


def mtu(host: Host) -> list[Finding]:
    """The size of the packets of each interface."""
    found = _none(host, "MTU")
    for interface in host.interfaces():
        name, size = f"MTU {interface}", host.number(f"{NET}/{interface}/mtu")
        if size is None:
            found.append(unknown(name, f"{NET}/{interface}/mtu cannot be read"))
            continue
        mbit = host.speed_mbit(interface) or 0
        wanted, state, why = size, State.OK, "the usual size" if size == MTU_BYTES_USUAL else "large packets are cheap"
        if size < MTU_BYTES_LEAST:
            wanted, state, why = MTU_BYTES_USUAL, State.LIMITS, "small packets cost rate and processor time"
        elif size <= MTU_BYTES_USUAL and mbit >= MBIT_JUMBO:
            wanted, state, why = MTU_BYTES_JUMBO, State.NOTE, "a link this fast wants large ones, if all on it can"
        elif size < MTU_BYTES_USUAL:
            why = "as usual in tunnels and clouds"
        if state is State.OK:
            found.append(fine(name, str(size), why))
        else:
            keep = (Keep(NETWORKD, f"[Link] MTUBytes={wanted}"),)
            found.append(Finding(name, str(size), state, why, (f"ip link set dev {interface} mtu {wanted}",), keep))
    return found


def mtu_mismatch(host: Host) -> list[Finding]:
    """Whether the interfaces differ."""
    sizes = {each: size for each in host.interfaces() if (size := host.number(f"{NET}/{each}/mtu"))}
    if not sizes:
        return [unknown("MTU, all", NONE)]
    if len(set(sizes.values())) == 1:
        return [fine("MTU, all", "the same", "no path has smaller packets than another")]
    most = max(sizes.values())
    smaller = [each for each, size in sizes.items() if size < most]
    value = ", ".join(f"{each} {size}" for each, size in sizes.items())
    mend = tuple(f"ip link set dev {each} mtu {most}" for each in smaller)
    why = "right if their links differ; else a bridge or tunnel between them drops packets"
    return [Finding("MTU, all", value, State.NOTE, why, mend, (Keep(NETWORKD, f"[Link] MTUBytes={most}"),))]


def mtu_probing(host: Host) -> list[Finding]:
    """Whether a leg finds out that large packets vanish."""
    name, value = "MTU probing", host.sysctl_number("net.ipv4.tcp_mtu_probing")
    if value is None:
        return [unknown(name, "net.ipv4.tcp_mtu_probing cannot be read")]
    why = "else a road that swallows large packets stalls legs"
    sizes = {host.number(f"{NET}/{each}/mtu") for each in host.interfaces()}
    if value or sizes <= {MTU_BYTES_USUAL, None}:
        return [fine(name, "on" if value else "off", why if value else "packets have the usual size")]
    return [Finding(name, "off", State.NOTE, why, *sysctl("net.ipv4.tcp_mtu_probing", 1))]


def speed(host: Host) -> list[Finding]:
    """How fast each link is, as its two ends have agreed."""
    found = _none(host, "speed")
    for interface in host.interfaces():
        name, mbit = f"speed {interface}", host.speed_mbit(interface)
        duplex = host.text(f"{NET}/{interface}/duplex")
        if mbit is None:
            found.append(unknown(name, "virtual, or its driver does not tell"))
            continue
        value = f"{mbit} Mbit/s, {duplex} duplex" if duplex in ("half", "full") else f"{mbit} Mbit/s"
        if duplex == "half" or mbit < MBIT_LEAST:
            why = "no transfer is faster; often the cable, the port, or one end without autonegotiation"
            mend = f"ethtool -s {interface} autoneg on"
            found.append(Finding(name, value, State.LIMITS, why, (mend,), (Keep(LINKD, "[Link] AutoNegotiation=yes"),)))
        else:
            found.append(fine(name, value, "no transfer is faster"))
    return found


def driver(host: Host) -> list[Finding]:
    """Whether the kernel hands large pieces to the interface, and gets large ones."""
    found = _none(host, "offloads")
    for interface in host.interfaces():
        name, does = f"offloads {interface}", host.offloads(interface)
        if does is None:
            found.append(unknown(name, "its driver cannot be asked"))
            continue
        why, off = "large pieces cost less than packets", [each for each in does if not does[each]]
        if not off:
            found.append(fine(name, f"{', '.join(does)} on", why))
            continue
        mend = f"ethtool -K {interface} {' '.join(f'{each} on' for each in off)}"
        keep = tuple(Keep(LINKD, f"[Link] {OFFLOAD_KEYS[each]}=yes") for each in off)
        found.append(Finding(name, f"{', '.join(off)} off", State.NOTE, why, (mend,), keep))
    return found


def errors(host: Host) -> list[Finding]:
    """What each interface has lost or damaged since it is up."""
    found = _none(host, "errors")
    for interface in host.interfaces():
        name, folder = f"errors {interface}", f"{NET}/{interface}/statistics"
        counts = {
            each: host.number(f"{folder}/{each}")
            for each in ("rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")
        }
        if None in counts.values():
            found.append(unknown(name, f"{folder} cannot be read"))
            continue
        rx_packets, tx_packets, *bad = (count or 0 for count in counts.values())
        packets, lost = rx_packets + tx_packets, sum(bad)
        value, why = f"{lost} of {packets} packets", "each costs its leg a pause"
        if BAD_SHARE * lost <= packets:
            found.append(fine(name, value, why))
            continue
        dropped = bad[2] + bad[3] > bad[0] + bad[1]
        if dropped:
            mend = (f"ethtool -g {interface}", f"ethtool -G {interface} rx 4096 tx 4096")
            keep = (Keep(LINKD, "[Link] RxBufferSize=max"), Keep(LINKD, "[Link] TxBufferSize=max"))
            found.append(Finding(name, value, State.NOTE, f"dropped here; larger rings hold more; {why}", mend, keep))
        else:
            why = f"damaged, as by a bad cable or port; {why}; see which:"
            found.append(Finding(name, value, State.LIMITS, why, (f"ethtool -S {interface}",)))
    return found


NETWORK: tuple[Check, ...] = (mtu, mtu_mismatch, mtu_probing, speed, driver, errors)
