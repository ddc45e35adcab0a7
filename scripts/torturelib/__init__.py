"""Real transfers under faults from outside, each with its outcome known beforehand: scripts/torture.

A *plan* follows from a seed: size, words, source, sink, and faults at given bytes of the stream. The *oracle* says
which exit statuses the two sides may end with. A *run* carries the plan out on real processes, and what it found is
judged. Workers, each a process of its own, do one run after another; the crew hands them the seeds.
"""
