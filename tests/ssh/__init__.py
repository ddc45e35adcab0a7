"""Both ends through a real sshd on loopback."""
