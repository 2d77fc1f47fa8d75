"""`python -m stylegan COMMAND`."""

from __future__ import annotations

import sys

from stylegan.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
