"""Source images and labels, normalised once so that every reader sees the same pixels.

An image's own JPEG or PNG bytes are kept where OpenCV, with which stock Caffe's Data layer reads, decodes them to the
same three 8-bit channels whatever the flags; everything else becomes an 8-bit BGR PNG.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from PIL import ExifTags, Image

from renet.common.errors import UserError, first_line
from renet.data.image_formats import TooManyPixels, decoded, load_image

_KEPT_FORMATS = frozenset({"JPEG", "PNG"})
_MOST_VALUES = 2**31 - 1  # of an array of OpenCV's and of Caffe's
_UPRIGHT = 1  # EXIF orientation: stored as it is to be seen
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# EXIF orientation -> the turn that makes the stored image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class LabelFrame(Enum):
    """Frame of a label whose image has an EXIF rotation: which way up it is."""

    BY_SIZE = "by-size"  # upright where its size says so beyond doubt, otherwise an error
    UPRIGHT = "upright"  # as the image is seen
    STORED = "stored"  # as the image's pixels are stored, the rotation not applied


class ColouredLabelError(UserError):
    """Complaint about a label file that holds colours in place of numbers."""


@dataclass(frozen=True)
class EncodedImage:
    """Image as it goes into a database: `data` decodes to `height` x `width` x 3, 8 bits, BGR."""

    data: bytes
    height: int
    width: int


def normalise(
    data: bytes,
    where: str,
    label_size: tuple[int, int] | None = None,
    label_frame: LabelFrame = LabelFrame.BY_SIZE,
    stored_serves: bool = False,
) -> EncodedImage:
    """Make a source image ready for the database.

    Grey becomes three equal channels; CMYK is converted as its Adobe marker says; 16 bits are rounded to 8; what is
    transparent is laid on white; an EXIF rotation is applied to the pixels where the label is upright.

    Args:
        data: the file's bytes.
        where: its path, for messages.
        label_size: height and width of its label; None where there is no label (then an EXIF rotation is applied).
        label_frame: which way up the label is.
        stored_serves: where the label's size shows that it lies as the pixels are stored, take both so, and make no
            error of it.

    Raises:
        UserError: the image is broken, is of an unknown kind, or is rotated and its label's size does not tell
            whether the label is upright; names `where`.
    """
    try:
        image = load_image(data)
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT))
    except TooManyPixels as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # Pillow's reader of EXIF raises many kinds, too
        raise UserError(f"{where}: not an image that can be read ({first_line(error)})") from None

    turn = _TURNS.get(orientation)
    if turn is None and image.format in _KEPT_FORMATS and _decodes_alike(data):
        return EncodedImage(data, image.height, image.width)
    pixels = _to_bgr(image, data, where)
    if turn is not None and _turn_is_due(turn, pixels.shape[:2], label_size, label_frame, stored_serves, where):
        pixels = np.ascontiguousarray(np.asarray(Image.fromarray(pixels).transpose(turn)))
    return EncodedImage(encode_png(pixels), *pixels.shape[:2])


def _turn_is_due(
    turn: Image.Transpose,
    stored: tuple[int, int],
    label_size: tuple[int, int] | None,
    label_frame: LabelFrame,
    stored_serves: bool,
    where: str,
) -> bool:
    """Whether the rotation that EXIF asks for is applied to the pixels (sizes are height, width)."""
    if label_frame is not LabelFrame.BY_SIZE or label_size is None:
        return label_frame is not LabelFrame.STORED
    on_its_side = turn in (
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
    )
    upright = stored[::-1] if on_its_side else stored
    if upright == stored:
        raise UserError(
            f"{where}: its EXIF orientation turns it without changing its size, so the label's size does not tell "
            "whether the label is upright; save it upright without the tag, or say --label-frame upright or stored"
        )
    if label_size == upright:
        return True
    if label_size == stored and stored_serves:
        return False
    if label_size == stored:
        raise UserError(
            f"{where}: its EXIF orientation turns it to {upright[1]} x {upright[0]}, but its label is "
            f"{stored[1]} x {stored[0]}: not upright; turn the label, or say --label-frame stored"
        )
    return True  # neither size: the caller's comparison with the label says so


def _decodes_alike(data: bytes) -> bool:
    """Whether OpenCV gives three equal 8-bit channels for these bytes whichever flag a reader uses."""
    as_is = decoded(data, cv2.IMREAD_UNCHANGED)
    if as_is is None or as_is.dtype != np.uint8 or as_is.ndim != 3 or as_is.shape[2] != 3:
        return False
    others = (decoded(data, cv2.IMREAD_COLOR), decoded(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION))
    return all(other is not None and np.array_equal(as_is, other) for other in others)


def _to_bgr(image: Image.Image, data: bytes, where: str) -> np.ndarray:
    """H x W x 3 uint8 of the image as stored."""
    # Pillow drops or clips the low byte of 16-bit images, so these are OpenCV's.
    deep = decoded(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if deep is not None and deep.dtype == np.uint16:
        pixels = np.rint(deep.astype(np.float64) / 257.0).astype(np.uint8)  # 65535 / 255 = 257
        if pixels.ndim == 2:
            return np.repeat(pixels[:, :, None], 3, axis=2)
        if pixels.shape[2] == 4:
            return _lay_on_white(Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)))
        return pixels
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise UserError(f"{where}: has {image.mode} pixels (32 bits or real numbers); save it with 8 or 16 bits")
    if image.has_transparency_data:
        return _lay_on_white(image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))[:, :, ::-1].copy()


def _lay_on_white(image: Image.Image) -> np.ndarray:
    """H x W x 3 uint8, BGR: what shows of an RGBA image on white paper."""
    paper = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(paper, image))[:, :, 2::-1].copy()


def read_index_png(data: bytes, where: str) -> np.ndarray:
    """Read a label file's class numbers: H x W, uint8 or uint16.

    Palette and grey PNGs of any bit depth hold numbers; the palette's colours play no part.

    Raises:
        UserError: broken, no PNG, or colours in place of numbers; names `where`.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise UserError(f"{where}: a label must be a PNG")
    try:
        image = load_image(data)
    except TooManyPixels as error:
        raise UserError(f"{where}: {error}") from None
    except ValueError as error:
        raise UserError(f"{where}: not a PNG that can be read ({error})") from None
    if image.mode not in ("P", "L", "1", "I", "I;16", "I;16B"):
        raise ColouredLabelError(
            f"{where}: has colours ({image.mode}), not class numbers; "
            "a label must be a palette or grey PNG whose pixel values are the numbers of the classes"
        )
    values = np.asarray(image)
    depth = data[struct.calcsize(">8sI4sII")]  # signature, chunk length, "IHDR", width, height, then the bit depth
    if image.mode == "L" and depth < 8:
        values = values // (255 // (2**depth - 1))  # Pillow stretches 2- and 4-bit grey to 0..255
    return values.astype(np.uint16 if values.max(initial=0) > 255 else np.uint8)


def shrink_image(image: np.ndarray, scale: float) -> np.ndarray:
    """Shrink H x W x 3 to about scale*H x scale*W x 3, by averaging areas."""
    height, width = shrunk_size(image.shape[:2], scale)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def resize_image(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize H x W x 3 to about scale*H x scale*W x 3, by averaging areas or bilinearly; 1 gives the image itself.

    Raises:
        UserError: the result has more values than 32 bits number.
    """
    if scale <= 1:
        return image if scale == 1 else shrink_image(image, scale)
    if image.size * scale * scale > _MOST_VALUES:
        raise UserError(f"{image.shape[1]} x {image.shape[0]} pixels scaled by {scale:g} are too many")
    height, width = shrunk_size(image.shape[:2], scale)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def shrink_label(label: np.ndarray, scale: float) -> np.ndarray:
    """Shrink H x W to about scale*H x scale*W: the label under the centre of each new pixel."""
    (height, width), (new_height, new_width) = label.shape, shrunk_size(label.shape, scale)
    rows = (2 * np.arange(new_height) + 1) * height // (2 * new_height)
    columns = (2 * np.arange(new_width) + 1) * width // (2 * new_width)
    return np.ascontiguousarray(label[rows[:, None], columns[None, :]])


def shrunk_size(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Compute height and width after shrinking: rounded, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode H x W or H x W x 3 (BGR) uint8 pixels as PNG."""
    done, buffer = cv2.imencode(".png", pixels)
    if not done:
        raise RuntimeError(f"OpenCV cannot write a PNG of shape {pixels.shape}")
    return buffer.tobytes()
