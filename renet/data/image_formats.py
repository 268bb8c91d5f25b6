"""Image files as they come from outside: the formats that are read, how large an image may be, silent libraries."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import TMonitor

from renet.common.errors import UserError, first_line
from renet.common.input_files import read_bytes

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000")  # Pillow's names
NAMES = "JPEG, PNG, TIFF, BMP, WebP, PPM and JPEG 2000"
MOST_FILE_BYTES = 2**30
# What a whole file of each format ends in; others are decoded to find out.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
# Lines that libtiff, libpng, libjpeg and OpenJPEG write to stderr by themselves, as far as they can be told.
_NOISE = re.compile(rb"(tempfile\.tif|TIFF\w*|JPEGLib|libpng \w+|Corrupt JPEG data|Premature end of JPEG|OpenJPEG)\b")

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class TooManyPixels(ValueError):
    """Complaint about an image that is larger than any that is read."""


def read_image_bytes(file: Path) -> bytes:
    """Read an encoded image that a user named.

    Raises:
        UserError: as `renet.common.input_files.open_file`.
    """
    return read_bytes(file, MOST_FILE_BYTES)


def open_image(encoded: bytes) -> Image.Image:
    """Open an encoded image; its header alone is read.

    Raises:
        ValueError: none of these formats, or more pixels than are read; says which. It names no file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError:
        raise TooManyPixels(_too_many()) from None
    except UnidentifiedImageError:
        raise ValueError(f"none of {NAMES}, or damaged") from None
    except Exception as error:  # Pillow's readers raise many kinds, SyntaxError and struct.error among them
        raise ValueError(first_line(error)) from None
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or sys.maxsize):
        raise TooManyPixels(_too_many())
    return image


def load_image(encoded: bytes) -> Image.Image:
    """Decode an image, all of it: a truncated file fails here and not in the middle of a training.

    Raises:
        ValueError: as `open_image`; or it is broken.
    """
    image = open_image(encoded)
    try:
        with warnings.catch_warnings(), quiet_libraries():
            warnings.simplefilter("ignore")
            image.load()
    except Exception as error:
        raise ValueError(first_line(error)) from None
    return image


def whole_size(encoded: bytes) -> tuple[int, int]:
    """Read the height and width of a whole image; it is decoded only where its end does not show that it is whole.

    Raises:
        ValueError: as `load_image`.
    """
    image = open_image(encoded)
    end = _ENDS.get(image.format or "")
    if end is None or not encoded.endswith(end):
        image = load_image(encoded)
    return image.height, image.width


def decoded(encoded: bytes, flags: int) -> np.ndarray | None:
    """Decode an image with OpenCV and its flags; None where it cannot.

    Raises:
        ValueError: as `open_image`.
    """
    open_image(encoded)  # how large it is, before anything is allocated
    with quiet_libraries():
        try:
            return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        except cv2.error:
            return None


def check_stated_size(height: int, width: int, where: str) -> None:
    """Make sure that an image whose size a file of annotations states is none too large to be drawn.

    Raises:
        UserError: it is; names `where`.
    """
    if height * width > (Image.MAX_IMAGE_PIXELS or sys.maxsize):
        raise UserError(f"{where}: is said to be {str(width)[:12]} x {str(height)[:12]}, which {_too_many()}")


def _too_many() -> str:
    return f"has more than {Image.MAX_IMAGE_PIXELS} pixels"


_lock = threading.Lock()
_within = 0  # threads that decode
_stderr = _kept = -1  # the process's stderr meanwhile, and what the libraries say


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the lines off stderr that image libraries write there.

    Where other threads are at work, what they write comes through, a little later.
    """
    global _within
    with _lock:
        if not _within:
            _divert()
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within:
                _restore()


def _divert() -> None:
    global _stderr, _kept
    try:
        _stderr = os.dup(2)
        if _kept < 0:
            _kept = os.memfd_create("stderr")
        os.dup2(_kept, 2)
    except (OSError, AttributeError):  # no stderr, or no such system
        if _stderr >= 0:
            os.close(_stderr)
        _stderr = -1


def _restore() -> None:
    global _stderr
    if _stderr < 0:
        return
    os.dup2(_stderr, 2)
    os.close(_stderr)
    _stderr = -1
    size = os.lseek(_kept, 0, os.SEEK_CUR)
    if size:
        said = os.pread(_kept, size, 0)
        os.ftruncate(_kept, 0)
        os.lseek(_kept, 0, os.SEEK_SET)
        ours = threading.current_thread()
        if any(one is not ours and not isinstance(one, TMonitor) for one in threading.enumerate()):
            os.write(2, b"".join(line for line in said.splitlines(keepends=True) if not _NOISE.match(line)))
