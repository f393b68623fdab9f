"""`python -m siglip` is the command `siglip`."""

import sys

from siglip.cli.main import main

sys.exit(main())
