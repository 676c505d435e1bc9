"""`python -m sejax.export`: see `sejax.inference.commands.export`."""

import sys

from sejax.inference.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
