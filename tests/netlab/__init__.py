"""A network laboratory: two hosts in namespaces, joined by links with a rate, a delay, loss and a queue.

    with Lab([Link(rate_mbit=100, delay_ms=50, loss=0.001)], seed=1, congestion="cubic") as lab:
        rx = lab.right.popen([...])
        tx = lab.left.popen([...])
        lab.links[0].down()

It needs root, a C compiler, ip(8) and /dev/net/tun; `missing()` says which of them is not there. Parts:

    shuttle.c, lane.h   the program that makes the namespaces and moves the packets
    build               compiles it, once
    lab                 starts it, addresses and routes, orders to it, counters of it
    throttle            a TCP proxy that caps each connection; needs neither root nor the laboratory
"""

from tests.netlab.build import LabError, missing
from tests.netlab.lab import TO_LEFT, TO_RIGHT, Counters, Host, Lab, Link, LiveLink

__all__ = ["TO_LEFT", "TO_RIGHT", "Counters", "Host", "Lab", "LabError", "Link", "LiveLink", "missing"]
