"""`python -m sejax.plan`: see `sejax.planning.command`."""

import sys

from sejax.planning.command import main

if __name__ == "__main__":
    sys.exit(main())
