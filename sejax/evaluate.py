"""`python -m sejax.evaluate`: see `sejax.inference.commands.evaluate`."""

import sys

from sejax.inference.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
