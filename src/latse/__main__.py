"""`python -m latse` is the command `latse`."""

import sys

from latse.cli import main

sys.exit(main())
