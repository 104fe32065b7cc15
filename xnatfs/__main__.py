"""``python -m xnatfs`` is ``xnatfs``."""

from __future__ import annotations

import sys

from xnatfs.cli import main

if __name__ == "__main__":
    sys.exit(main())
