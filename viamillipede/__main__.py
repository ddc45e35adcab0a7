"""`python -m viamillipede`."""

import sys

from viamillipede.cli import main

sys.exit(main())
