"""The doctor: checks against made-up hosts, advice from made-up figures, and the whole against real receivers."""
