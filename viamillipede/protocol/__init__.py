"""The core: state machines without I/O, clocks, threads or randomness of their own."""
