"""What a worker is started with: python -m torturelib.worker_main ORDER."""

import sys

from .worker import main

if __name__ == "__main__":
    main(sys.argv[1])
