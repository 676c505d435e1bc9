"""`python -m sejax.predict`: see `sejax.inference.commands.predict`."""

import sys

from sejax.inference.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
