"""Write small images for the fuzzer to begin with.

Usage: ``python3 fuzz_seeds.py FOLDER``. One for each format that the decoder knows; those that are there stay.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

FORMATS = ("png", "jpeg", "bmp", "tiff", "webp", "ppm")


def main(arguments: list[str]) -> int:
    """Write into the folder that the command line names; the exit status."""
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for mode in ("L", "RGB"):
        for name in FORMATS:
            file = folder / f"{mode}.{name}"
            if not file.exists():
                Image.new(mode, (12, 9), 2).save(file, format=name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
