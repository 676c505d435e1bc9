"""`python -m sejax.predict`: see `sejax.inference.predict`."""

import sys

from sejax.inference.predict import main

if __name__ == "__main__":
    sys.exit(main())
