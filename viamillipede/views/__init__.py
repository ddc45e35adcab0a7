"""How a transfer is shown: a live line, a full screen, JSON, Prometheus. Views know snapshots, and nothing else."""
