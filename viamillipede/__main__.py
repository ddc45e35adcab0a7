"""The program as a process: `viamillipede`, `python -m viamillipede`."""

import os
from typing import NoReturn

from viamillipede.cli import main


def run() -> NoReturn:
    """End with the status of `main`, at once: all was written without buffers, and taking the interpreter
    down in order, which nobody needs then, would take 25 ms."""
    os._exit(main())


if __name__ == "__main__":
    run()
