"""Archives from elsewhere: what leads out of them, is no file, is too large or would run is left alone or told."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from renet.common.archives import load_npz, open_tar
from renet.common.errors import UserError
from renet.conversion import stanford_background
from renet.conversion.stanford_background import ArchiveSource, open_source
from renet.conversion.voc2012 import read_sbd_label

MEBIBYTE = 1 << 20
MARK = "ran"


def tar_of(file: Path, *members: tarfile.TarInfo) -> Path:
    """A tar archive, whose files hold zeros."""
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return file


def member(name: str, size: int = 3, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size if kind == tarfile.REGTYPE else 0, kind, target
    return info


def test_links_devices_and_paths_of_an_archive_lead_nowhere(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "a.tgz",
        member("iccv09Data/images/one.jpg"),
        member("iccv09Data/images/link.jpg", kind=tarfile.SYMTYPE, target="/etc/passwd"),
        member("iccv09Data/images/hard.jpg", kind=tarfile.LNKTYPE, target="iccv09Data/images/one.jpg"),
        member("iccv09Data/images/zero.jpg", kind=tarfile.CHRTYPE),
        member("iccv09Data/images/pipe.jpg", kind=tarfile.FIFOTYPE),
        member("../../outside.jpg"),
        member("/etc/absolute.jpg"),
        member("iccv09Data/images/../../outside.jpg"),
    )
    source = ArchiveSource(archive)
    assert sorted(source.names()) == ["images/../../outside.jpg", "images/one.jpg"]
    with pytest.raises(UserError, match="2 JPEG images; the Stanford Background dataset has 715"):
        stanford_background.image_ids(source)
    assert os.listdir(tmp_path) == ["a.tgz"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("images/large.jpg", 5 * MEBIBYTE)], r"of 1430 files of at most 4 MiB \(images/large.jpg"),
        ([member("other", 1100 * MEBIBYTE), member("images/a.jpg")], "unpacks to more than 1024 MiB"),
        ([member(f"images/{number}.jpg") for number in range(1431)], "of 1430 files"),
    ],
)
def test_an_archive_that_unpacks_to_much_is_refused_in_little_memory(
    tmp_path: Path, members: list[tarfile.TarInfo], message: str
) -> None:
    archive = tar_of(tmp_path / "a.tgz", *members)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            ArchiveSource(archive)
        assert tracemalloc.get_traced_memory()[1] < 32 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_a_header_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    header = member("pax", 900 * MEBIBYTE)
    header.type = tarfile.XHDTYPE
    with gzip.open(tmp_path / "a.tgz", "wb", 1) as stream:
        stream.write(header.tobuf())
        for _ in range(80):
            stream.write(bytes(MEBIBYTE))
    tracemalloc.start()
    try:
        with (
            pytest.raises(UserError, match="has a header of such a size"),
            open_tar(tmp_path / "a.tgz", 1 << 30) as tar,
        ):
            list(tar)
        assert tracemalloc.get_traced_memory()[1] < 32 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_what_is_fetched_is_compared_with_the_known_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tar_of(tmp_path / "iccv09Data.tar.gz", member("images/a.jpg"))
    monkeypatch.setattr(stanford_background, "HOMES", ((tmp_path / "gone").as_uri(), home.as_uri()))
    with pytest.raises(UserError, match=r"its files are not the known ones .*pass it with --archive FILE"):
        open_source(None, None, tmp_path / "out")
    monkeypatch.setattr(stanford_background, "CONTENT_SHA256", ArchiveSource(home).content_sha256())
    assert open_source(None, None, tmp_path / "out").names() == ["images/a.jpg"]
    assert open_source(home, None, tmp_path / "out").names() == ["images/a.jpg"]


class Runs:
    """Code in a pickle."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (MARK,)


def npz(file: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def test_arrays_are_read_as_they_were(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(24, dtype=np.float16).reshape(2, 3, 4),
        "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "c": np.array("text"),
        "d": np.zeros((0, 3)),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = load_npz(tmp_path / "a.npz", MEBIBYTE, "arrays")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name


def test_an_npz_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = npy(np.zeros(10**6))
    lying = whole.replace(b"(1000000,)", b"(9999999,)")
    endless = whole.replace(b"(1000000,)", b"(-10000,) ")
    cases = {
        "objects": npz(tmp_path / "1.npz", a=npy(np.array([Runs()], object), allow_pickle=True)),
        "bomb": npz(tmp_path / "2.npz", a=npy(np.zeros(1 << 25))),
        "lying": npz(tmp_path / "3.npz", a=lying),
        "negative": npz(tmp_path / "4.npz", a=endless),
        "no array": npz(tmp_path / "5.npz", a=b"\x93NUMPY\x09\x00"),
        "empty": npz(tmp_path / "6.npz", a=b""),
        "no zip": tmp_path / "7.npz",
    }
    cases["no zip"].write_bytes(b"PK\x03\x04" + bytes(100))
    for name, file in cases.items():
        with pytest.raises(UserError, match=f"{file}: not arrays"):
            load_npz(file, 16 * MEBIBYTE, "arrays")
            pytest.fail(name)
    assert not (tmp_path / MARK).exists(), "nothing of a pickle was run"


def test_a_matlab_file_that_unpacks_to_much_is_refused() -> None:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, {"GTcls": np.zeros((3000, 3000))}, do_compression=True)
    assert len(stream.getvalue()) < MEBIBYTE
    with pytest.raises(UserError, match="unpacks to more than 64 MiB"):
        read_sbd_label(stream.getvalue(), "x.mat")
