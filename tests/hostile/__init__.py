"""Peers that speak the protocol rightly up to a point, with and without a key, and then do not.

Whatever they do, the program does not crash, hang, grow in memory beyond its window and 64 MiB, deliver a byte that
was not sent, or disturb anybody else's stream.
"""
