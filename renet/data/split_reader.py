"""Reader of a prepared split: images and labels by number."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from weakref import WeakValueDictionary

import cv2
import lmdb
import numpy as np

from renet.common.errors import UserError
from renet.data.datum import unpack_encoded
from renet.data.image_formats import decoded, whole_size
from renet.data.image_ids import check_name

IMAGES = "images.lmdb"
LABELS = "labels.lmdb"
KEY_DIGITS = 8
# A process may open a database once only, so its readers share it; by device and inode.
_open_ones: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()
_lock = threading.Lock()


def make_key(number: int, image_id: str) -> str:
    """Write the key of sample `number`: `00000000_<image id>`, so that the byte order of the keys is that of the
    numbers."""
    return f"{number:0{KEY_DIGITS}d}_{image_id}"


def id_of_key(key: str) -> str:
    """Take the image id from a key."""
    return key[KEY_DIGITS + 1 :]


def decode_image(encoded: bytes) -> np.ndarray:
    """Decode to H x W x 3 uint8, BGR, as every reader here does (EXIF orientation ignored).

    Raises:
        ValueError: it is no image that can be decoded; says why.
    """
    image = decoded(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("damaged")
    return image


def decode_label(encoded: bytes) -> np.ndarray:
    """Decode to H x W uint8.

    Raises:
        ValueError: it is no 8-bit image of one channel; says why.
    """
    label = decoded(encoded, cv2.IMREAD_UNCHANGED)
    if label is None:
        raise ValueError("damaged")
    if label.ndim != 2 or label.dtype != np.uint8:
        raise ValueError(f"{label.dtype.itemsize * 8} bits, {1 if label.ndim == 2 else label.shape[2]} channels")
    return label


class SplitReader:
    """Prepared split, for reading; several processes may read it at once.

    A context manager. Samples are numbered 0 .. len-1 in the order of their keys.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the split in `folder`; labels are optional.

        Raises:
            UserError: `folder` is no prepared split, or its labels are not those of its images.
        """
        self.folder = Path(folder)
        self._images: lmdb.Environment | None = _open(self.folder / IMAGES)
        self._labels: lmdb.Environment | None = None
        try:
            self._keys = _keys(self._images)
            if (self.folder / LABELS).is_dir():
                self._labels = _open(self.folder / LABELS)
                if _keys(self._labels) != self._keys:
                    raise UserError(f"{self.folder}: {LABELS} and {IMAGES} have different keys; prepare the split anew")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SplitReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the databases; nothing can be read after that."""
        self._images = self._labels = None  # the last reader's going closes it

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def has_labels(self) -> bool:
        """Tell whether the split holds labels."""
        return self._labels is not None

    def keys(self) -> list[str]:
        """List the keys, `00000000_<image id>`, in order."""
        return list(self._keys)

    def ids(self) -> list[str]:
        """List the image ids, in the order of the keys."""
        return [id_of_key(key) for key in self._keys]

    def image_bytes(self, index: int) -> bytes:
        """Read the encoded image of sample `index`.

        Raises:
            UserError: the record is damaged.
        """
        return self._encoded(self._images, index)

    def image(self, index: int) -> np.ndarray:
        """Read the image of sample `index`: H x W x 3 uint8, BGR.

        Raises:
            UserError: the record is damaged.
        """
        try:
            image = decode_image(self.image_bytes(index))
        except ValueError as error:
            raise UserError(
                f"{self.folder / IMAGES}: record {self._keys[index]} is not an image that can be decoded ({error})"
            ) from None
        if self._labels is not None:
            self._check_size(index, image.shape, self._labels)
        return image

    def label(self, index: int) -> np.ndarray | None:
        """Read the label map of sample `index`: H x W uint8; None in a split without labels.

        Raises:
            UserError: the record is damaged.
        """
        if self._labels is None:
            return None
        try:
            label = decode_label(self._encoded(self._labels, index))
        except ValueError as error:
            raise UserError(
                f"{self.folder / LABELS}: record {self._keys[index]} is not an 8-bit grey image ({error})"
            ) from None
        self._check_size(index, label.shape, self._images)
        return label

    def records(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Iterate over every sample's key, image Datum and label Datum (empty without labels), in order."""
        for key in self._keys:
            name = key.encode()
            yield name, _record(self._images, name), b"" if self._labels is None else _record(self._labels, name)

    def _check_size(self, index: int, shape: tuple[int, ...], other: lmdb.Environment) -> None:
        """Hold a decoded image or label to the size of its other half, which has to be whole, too."""
        key = self._keys[index]
        try:
            height, width = whole_size(self._encoded(other, index))
        except ValueError as error:
            raise UserError(f"{other.path()}: record {key} is not an image that can be decoded ({error})") from None
        if (height, width) != shape[:2]:
            sizes = [f"{shape[1]} x {shape[0]}", f"{width} x {height}"]
            image, label = sizes if other is self._labels else sizes[::-1]
            raise UserError(f"{self.folder}: record {key}: the image is {image}, its label {label}")

    def _encoded(self, environment: lmdb.Environment, index: int) -> bytes:
        key = self._keys[index]
        try:
            return unpack_encoded(_record(environment, key.encode()))
        except ValueError as error:
            raise UserError(f"{environment.path()}: record {key}: {error}") from None


class RecordDigest:
    """SHA-256 over key, image record and label record of each sample in order, each led by its length in 8 bytes.

    LMDB's own file is no measure: its pages depend on how the transactions were cut.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, *record: bytes) -> None:
        """Go on with the next sample."""
        for part in record:
            self._digest.update(len(part).to_bytes(8, "big"))
            self._digest.update(part)

    def hexdigest(self) -> str:
        """The checksum so far, in hexadecimal."""
        return self._digest.hexdigest()


def records_sha256(reader: SplitReader) -> str:
    """Compute the `RecordDigest` of a whole split."""
    digest = RecordDigest()
    for record in reader.records():
        digest.add(*record)
    return digest.hexdigest()


def _open(folder: Path) -> lmdb.Environment:
    try:
        file = (folder / "data.mdb").stat()
    except OSError:
        raise UserError(f"{folder.parent}: not a prepared split: {folder.name} is missing") from None
    with _lock:
        environment = _open_ones.get((file.st_dev, file.st_ino))
        if environment is None:
            try:
                # A prepared split never changes, so readers need no lock file and work on read-only media.
                environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, subdir=True)
            except lmdb.Error as error:
                raise UserError(f"{folder}: not a readable LMDB database ({error})") from None
            # Where the file ends too early, looking beyond its end would kill this process with a bus error.
            needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            if file.st_size < needed:
                raise UserError(
                    f"{folder / 'data.mdb'}: has {file.st_size:,} of the {needed:,} bytes that its header tells of: "
                    "the copy was interrupted; copy or prepare it anew"
                )
            _open_ones[file.st_dev, file.st_ino] = environment
        return environment


def _keys(environment: lmdb.Environment) -> list[str]:
    try:
        with environment.begin() as transaction, transaction.cursor() as cursor:
            keys = [bytes(key).decode("utf-8") for key in cursor.iternext(keys=True, values=False)]
    except (lmdb.Error, UnicodeDecodeError) as error:
        raise UserError(f"{environment.path()}: damaged ({error})") from None
    for key in keys:
        if len(key) <= KEY_DIGITS or not key[:KEY_DIGITS].isdigit() or key[KEY_DIGITS] != "_":
            raise UserError(f"{environment.path()}: the key {key!r} does not read {make_key(0, '<image id>')}")
        check_name(id_of_key(key), environment.path())
    return keys


def _record(environment: lmdb.Environment, key: bytes) -> bytes:
    try:
        with environment.begin() as transaction:
            value = transaction.get(key)
    except lmdb.Error as error:
        raise UserError(f"{environment.path()}: damaged at {key.decode()} ({error})") from None
    if value is None:
        raise UserError(f"{environment.path()}: the record {key.decode()} is missing")
    return bytes(value)
