"""`python -m edgepress` is the command `edgepress`."""

import sys

from edgepress.cli.main import main

sys.exit(main())
