"""``python -m tenth``: the same as the ``tenth`` command."""

import sys

from tenth.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
