"""`python -m sejax.serve`: see `sejax.inference.commands.serve`."""

import sys

from sejax.inference.commands.serve import main

if __name__ == "__main__":
    sys.exit(main())
