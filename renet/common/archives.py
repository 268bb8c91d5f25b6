"""Archives from elsewhere: tar and .npz, of which no more is unpacked than can be meant, and nothing is run."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from renet.common.errors import UserError, first_line
from renet.common.input_files import open_file

_COMPRESSIONS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_LONGEST_READ = 1 << 26  # of a tar file's reader at once: a header that says it is longer is none
_LONGEST_NPY_HEADER = 10_000


class _Bounded(io.RawIOBase):
    """What an archive unpacks to, up to so many bytes."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self._most = most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > self._most:
            raise tarfile.ReadError(f"it unpacks to more than {self._most >> 20} MiB")
        return self._stream.seek(offset)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ or self._stream.tell() + size > self._most:
            raise tarfile.ReadError(f"it unpacks to more than {self._most >> 20} MiB, or has a header of such a size")
        return self._stream.read(size)


@contextmanager
def open_tar(archive: Path, most: int) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, compressed or not, to read its members from front to back.

    Args:
        archive: the file.
        most: bytes to which it may unpack.

    Raises:
        UserError: no such file, no whole tar archive, or one that unpacks to more; names it.
    """
    with open_file(archive, None) as stream:
        try:
            head = stream.read(6)
            stream.seek(0)
            unpack = next((opener for mark, opener in _COMPRESSIONS if head.startswith(mark)), None)
            plain: Any = stream if unpack is None else unpack(stream)
            with tarfile.open(fileobj=_Bounded(plain, most), mode="r:") as tar:
                yield tar
        except UserError:
            raise
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise UserError(f"{archive}: not a whole tar archive ({first_line(error)})") from None


def load_npz(file: Path, most: int, what: str) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz; none of Python's objects among them.

    Args:
        file: the archive.
        most: bytes that all its arrays may have.
        what: it should be, for messages: "probabilities of predict.py".

    Raises:
        UserError: no such file; not such an archive, damaged, or larger; names it.
    """
    with open_file(file) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                members = archive.infolist()
                size = sum(member.file_size for member in members)
                if size > most:
                    raise UserError(f"{file}: not {what}: it unpacks to {size:,} bytes; at most {most:,} are read")
                return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
            RuntimeError,  # encrypted, or compressed in a way that is not known
            SyntaxError,
            MemoryError,
        ) as error:
            raise UserError(f"{file}: not {what}, or damaged ({first_line(error)})") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array, whose header says no other size than the archive's."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{member.filename}: an array of version {version}")
        shape, columns_first, kind = readers[version](stream, max_header_size=_LONGEST_NPY_HEADER)
        count = math.prod(shape)
        if kind.hasobject or min(shape, default=0) < 0 or stream.tell() + count * kind.itemsize != member.file_size:
            raise ValueError(f"{member.filename}: an array of {shape} of {kind} in {member.file_size:,} bytes")
        values = np.frombuffer(bytearray(stream.read()), kind, count)
        return values.reshape(shape, order="F" if columns_first else "C")
