"""`python -m sejax.compare`: see `sejax.comparison.command`."""

import sys

from sejax.comparison.command import main

if __name__ == "__main__":
    sys.exit(main())
