"""Images as they are sent: read within limits, checked before they are decoded, and turned upright."""

from __future__ import annotations

import io
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import numpy as np
from fastapi import HTTPException, Request
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from renet.common.errors import UserError
from renet.data.images import normalise
from renet.data.split_reader import decode_image

FIELD = "image"  # of a form
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff", "image/x-portable-pixmap")
UNNAMED = "application/octet-stream"
FORM = "multipart/form-data"
_MOST_OF_A_FORM_BESIDE = 16 << 10  # bytes of a form that are not its image


@dataclass(frozen=True)
class Limits:
    """What is too much.

    Attributes:
        bytes: of an image file.
        pixels: of an image, also as the largest of the scales makes it.
        seconds: that sending it, and then predicting it, may take.
    """

    bytes: int = 16 << 20
    pixels: int = 4_000_000
    seconds: float = 60.0


async def read_image_file(request: Request, limits: Limits) -> bytes:
    """Read the image file that a request is or, in a form, has.

    Raises:
        HTTPException: 400, a form that cannot be read or has no image; 408, it is sent too slowly; 413, it is too
            large; 415, it is said to be something else than an image.
    """
    kind = request.headers.get("content-type", UNNAMED).partition(";")[0].strip().lower()
    is_form = kind == FORM
    if not is_form and not kind.startswith("image/") and kind != UNNAMED:
        raise HTTPException(
            415,
            f"{kind}: send the image as {FORM}, in the field {FIELD}, or as the body itself with its own Content-Type "
            f"(image/jpeg, ...) or {UNNAMED}",
        )
    try:
        with anyio.fail_after(limits.seconds):
            body = await _body(request, limits.bytes + is_form * _MOST_OF_A_FORM_BESIDE, limits.bytes)
    except TimeoutError:
        raise HTTPException(408, f"the image was not sent within {limits.seconds:g} seconds") from None
    if is_form:
        body = await _image_of_form(request, body)
        if len(body) > limits.bytes:
            raise _too_large(limits.bytes)
    return body


async def _body(request: Request, most: int, told: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(told)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(told)
    return bytes(body)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"an image file may have {most} bytes here")


class _FormInMemory(MultiPartParser):
    """Starlette's parser, but for files on the disk: the body has been read, and is no larger in parts."""

    spool_max_size = 0  # no limit


async def _image_of_form(request: Request, body: bytes) -> bytes:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await _FormInMemory(request.headers, stream(), max_files=1, max_fields=8).parse()  # type: ignore[arg-type]
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    image = form.get(FIELD)
    if not isinstance(image, UploadFile):
        raise HTTPException(400, f'the form has no file in the field "{FIELD}"')
    return await image.read()


def decode(file: bytes, limits: Limits, scale: float) -> np.ndarray:
    """Decode an image file, turned as its EXIF orientation says.

    Args:
        file: its bytes.
        limits: its pixels are counted before they are decoded.
        scale: the largest factor by which it is going to be resized.

    Returns:
        H x W x 3 uint8, BGR.

    Raises:
        HTTPException: 422, no image of the kinds that are read, or one of too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = Image.open(io.BytesIO(file), formats=FORMATS).size
    except Image.DecompressionBombError:
        raise HTTPException(422, f"an image may have {limits.pixels} pixels here") from None
    except Exception:  # Pillow's readers raise many kinds
        raise HTTPException(422, f"not an image that can be read ({', '.join(FORMATS)})") from None
    if width * height > limits.pixels:
        raise HTTPException(422, f"the image has {width} x {height} pixels; it may have {limits.pixels} here")
    if width * height * scale * scale > limits.pixels:
        raise HTTPException(
            422, f"the image has {width} x {height} pixels, which scaled by {scale:g} are more than {limits.pixels}"
        )
    try:
        image = decode_image(normalise(file, "the image").data)
    except UserError as error:
        raise HTTPException(422, str(error)) from None
    return image
