"""What people name as files: regular ones are read; pipes, devices and what is too large are told at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from segmentation_helpers import call_tool, only_line, save_labels, write_dataset_json

from renet.common.errors import UserError
from renet.common.input_files import MOST_BYTES, open_file, read_bytes
from renet.common.text_files import read_json, read_lines
from renet.data.image_formats import read_image_bytes
from renet.data.label_maps import read_label_map
from renet.prediction.crf_job import read_probabilities


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def listener(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(folder / "socket"))
    return folder / "socket"


def sparse(folder: Path) -> Path:
    with open(folder / "large", "wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    return folder / "large"


KINDS: dict[str, Callable[[Path], Path]] = {
    "is a pipe, not a file": pipe,
    "cannot be read|is a socket": listener,
    "is a device, not a file": lambda folder: Path("/dev/zero"),
    "is a folder, not a file": lambda folder: folder,
    "no such file": lambda folder: folder / "nothing",
    r"has 2,147,483,648 bytes; at most [\d,]+ are read": sparse,
    "cannot be read .*null byte": lambda folder: folder / "a\0b",
}


@pytest.mark.parametrize("message", KINDS)
@pytest.mark.parametrize(
    "read",
    [
        read_bytes,
        read_lines,
        read_json,
        read_image_bytes,
        read_label_map,
        lambda file: read_probabilities(file, 2, np.zeros((3, 4, 3), np.uint8)),
    ],
)
def test_no_file_is_waited_for(tmp_path: Path, message: str, read: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(KINDS[message](tmp_path))
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_links_are_followed_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    before = os.listdir("/proc/self/fd")
    assert read_bytes(tmp_path / "link") == b"content"
    for wrong in (tmp_path, Path("/dev/zero")):
        with pytest.raises(UserError):
            open_file(wrong)
    assert os.listdir("/proc/self/fd") == before


def test_tools_tell_it(tmp_path: Path) -> None:
    write_dataset_json(tmp_path)
    (tmp_path / "folder").mkdir()
    zero, fifo = "/dev/zero", pipe(tmp_path)
    for folder in ("folder", "photos"):
        save_labels(tmp_path / folder / "a.png", np.zeros((3, 4)))
    convert = ("--images", "photos", "--labels", "folder", "--out", "out", "--test-fraction", 0, "--classes")
    calls = [
        ("../data_prep/stanford_background.py", ("--archive", zero, "--out", "out"), "is a device"),
        ("../data_prep/stanford_background.py", ("--archive", fifo, "--out", "out"), "is a pipe"),
        ("../data_prep/folder.py", (*convert, zero), "is a device"),
        ("../data_prep/vgg16.py", ("--archive", zero, "--out", "out"), "is a device"),
        ("evaluate.py", ("--predictions", "folder", "--labels", "folder", "--dataset", zero), "is a device"),
    ]
    for tool, arguments, message in calls:
        assert message in only_line(call_tool(tool, *arguments, cwd=tmp_path), Path(tool).name), tool
