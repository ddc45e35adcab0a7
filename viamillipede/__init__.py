"""viamillipede, RAID for TCP: one byte stream over many TCP connections, whole and in order."""

__version__ = "0.1.0"
