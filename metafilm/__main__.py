"""`python -m metafilm` is the command `metafilm`."""

import sys

from metafilm.cli import main

sys.exit(main())
