"""Write small images for the fuzzer to begin with.

Usage: ``python3 fuzz_seeds.py FOLDER``. One for each format that the decoder knows, with the bytes behind it that
tests/fuzz/any_datum.hpp takes its decisions from; those that are there stay.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

FORMATS = ("png", "jpeg", "bmp", "tiff", "webp", "ppm")
DECISIONS = bytes([1, 0, 9, 9, 1, 2, 4, 1, 1])  # read from the end: scales, rotation, blur, ..., a bare image


def main(arguments: list[str]) -> int:
    """Write into the folder that the command line names; the exit status."""
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for mode in ("L", "RGB"):
        for name in FORMATS:
            file = folder / f"{mode}.{name}"
            if not file.exists():
                content = io.BytesIO()
                Image.new(mode, (12, 9)).save(content, format=name)
                file.write_bytes(content.getvalue() + DECISIONS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
