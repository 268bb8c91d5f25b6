"""Image files from elsewhere: a list of formats, sizes that are compared before they are decoded, silent libraries."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import (
    call_tool,
    only_line,
    png_of_zeros,
    save_labels,
    write_dataset_json,
    write_split,
)

from renet.common.errors import UserError
from renet.conversion.annotated_image import AnnotatedImage, ClassNames
from renet.conversion.labelme import read_labelme
from renet.data.datum import Datum, pack_encoded
from renet.data.image_formats import (
    FORMATS,
    TooManyPixels,
    decoded,
    load_image,
    quiet_libraries,
    whole_size,
)
from renet.data.images import normalise, read_index_png
from renet.data.label_maps import read_label_map
from renet.data.split_reader import SplitReader

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)


def encoded(form: str, pixels: np.ndarray = PIXELS, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


BOMB = png_of_zeros(13_000, 13_000)


@pytest.mark.parametrize("form", FORMATS)
def test_the_formats_that_are_read(form: str) -> None:
    content = encoded(form)
    assert whole_size(content) == (24, 32)
    assert normalise(content, "x").height == 24
    for broken in (content[: len(content) // 2], content[:5], content[5:]):
        with pytest.raises(UserError, match="x: not an image that can be read"):
            normalise(broken, "x")
        with pytest.raises(ValueError):
            whole_size(broken)


def test_several_images_in_a_jpeg_are_read_as_the_first() -> None:
    content = encoded("MPO", save_all=True, append_images=[Image.fromarray(PIXELS)])
    assert normalise(content, "x").width == 32


@pytest.mark.parametrize("form", ["GIF", "ICO", "ICNS", "TGA", "PCX", "SGI", "DDS", "EPS", "PDF", "IM", "MSP", "XBM"])
def test_other_formats_are_told(form: str) -> None:
    options = {"append_images": []} if form == "PDF" else {}
    pixels = np.zeros((32, 32), bool) if form in ("MSP", "XBM") else np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(
        UserError, match=r"x: not an image that can be read \(none of JPEG, PNG, TIFF, BMP, WebP, PPM and"
    ):
        normalise(encoded(form, pixels, **options), "x")


def peak_growth() -> int:
    """The kibibytes at most that this process has held since the last call."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            peak = int(line.split()[1])
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def test_sizes_are_compared_before_anything_is_decoded() -> None:
    colours = encoded("PNG")
    peak_growth()
    before = peak_growth()
    for content in (BOMB, png_of_zeros(30_000, 30_000, bits=1)):
        with pytest.raises(UserError, match="x: has more than 89478485 pixels"):
            normalise(content, "x")
        with pytest.raises(UserError, match="x: has more than 89478485 pixels"):
            read_index_png(content, "x")
        with pytest.raises(TooManyPixels):
            decoded(content, -1)
    assert peak_growth() - before < 50_000
    assert load_image(colours).size == (32, 24)


def test_libraries_say_nothing_beside_our_line(capfd: pytest.CaptureFixture[str]) -> None:
    lzw, jpeg = encoded("TIFF", compression="tiff_lzw"), encoded("JPEG")
    torn = bytearray(lzw)
    torn[20:60] = bytes(byte ^ 0x55 for byte in torn[20:60])
    odd = bytearray(jpeg)
    odd[8:60] = bytes(byte ^ 0x5A for byte in odd[8:60])
    for content in (bytes(torn), bytes(odd), lzw[: len(lzw) // 2], encoded("TIFF")[:2000]):
        with pytest.raises(UserError):
            normalise(content, "x")
        decoded_or_not(content)
    assert capfd.readouterr().err == ""
    said, go_on = threading.Event(), threading.Event()

    def somebody_else() -> None:
        os.write(2, b"somebody else's line\ntempfile.tif: Using code not yet in table.\n")
        said.set()
        go_on.wait()

    other = threading.Thread(target=somebody_else)
    with quiet_libraries():
        other.start()
        said.wait()
    go_on.set()
    other.join()
    assert capfd.readouterr().err == "somebody else's line\n"


def decoded_or_not(content: bytes) -> None:
    try:
        decoded(content, -1)
    except ValueError:
        return


def test_sizes_of_annotations_are_compared_before_anything_is_drawn(tmp_path: Path) -> None:
    huge = 10**6
    entry = {"imageHeight": huge, "imageWidth": huge, "shapes": [], "imagePath": "a.jpg"}
    (tmp_path / "a.json").write_text(json.dumps(entry))
    classes = ClassNames.of(["a"])
    peak_growth()
    before = peak_growth()
    with pytest.raises(
        UserError, match=r"a\.json: is said to be 1000000 x 1000000, which has more than 89478485 pixels"
    ):
        read_labelme(tmp_path / "a.json", classes)
    with pytest.raises(UserError, match="x: is said to be"):
        AnnotatedImage("a.jpg", huge, huge).label(classes, "x")
    with pytest.raises(UserError, match="x: is said to be"):
        AnnotatedImage("a.jpg", 10**400, 1).label(classes, "x")
    assert peak_growth() - before < 50_000


HOSTILE = {
    "random bytes": np.random.default_rng(1).bytes(500),
    "empty": b"",
    "floats": Datum(channels=3, height=24, width=32, float_data=[0.5] * (24 * 32 * 3)).SerializeToString(),
    "raw pixels": Datum(channels=3, height=24, width=32, data=PIXELS.tobytes()).SerializeToString(),
    "a truncated JPEG": pack_encoded(encoded("JPEG")[:-300], 3, 24, 32),
    "a truncated PNG": pack_encoded(encoded("PNG")[:-300], 3, 24, 32),
    "another size": pack_encoded(encoded("PNG", PIXELS[:20]), 3, 24, 32),
    "a bomb": pack_encoded(BOMB, 3, 24, 32),
    "another format": pack_encoded(encoded("GIF"), 3, 24, 32),
}


def split_with(folder: Path, database: str, record: bytes) -> Path:
    """A split of two samples; the second one's record is replaced in one database."""
    import lmdb

    labels = np.zeros((24, 32), np.uint8)
    write_split(folder, {"good": (PIXELS, labels), "bad": (PIXELS, labels)})
    with lmdb.open(str(folder / database)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"00000001_bad", record)
    return folder


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("database", ["images.lmdb", "labels.lmdb"])
def test_a_hostile_record_is_told_whichever_half_is_read(tmp_path: Path, kind: str, database: str) -> None:
    split = split_with(tmp_path / "split", database, HOSTILE[kind])
    with SplitReader(split) as reader:
        assert reader.image(0).shape == (24, 32, 3) and reader.label(0).shape == (24, 32)
        for read in (reader.image, reader.label):
            with pytest.raises(UserError, match=f"{split}.*record 00000001_bad") as caught:
                read(1)
            assert "\n" not in str(caught.value)


def test_tools_tell_of_a_hostile_record(tmp_path: Path) -> None:
    split = split_with(tmp_path / "data/test", "images.lmdb", HOSTILE["a truncated JPEG"])
    write_dataset_json(tmp_path / "data")
    for name in ("good", "bad"):
        save_labels(tmp_path / f"predictions/{name}.png", np.zeros((24, 32), np.uint8))
    told = f"{split}/images.lmdb: record 00000001_bad is not an image that can be decoded"
    scored = call_tool(
        "evaluate.py", "--predictions", "predictions", "--labels", split, "--dataset", "data", cwd=tmp_path
    )
    assert told in only_line(scored, "evaluate.py")
    page = ("--predictions", "predictions", "--labels", split, "--out", "page.html")
    assert told in only_line(call_tool("report.py", *page, cwd=tmp_path), "report.py")


def test_scoring_reads_a_prediction_of_any_size_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(BOMB)
    with pytest.raises(UserError, match="has more than 89478485 pixels"):
        read_label_map(tmp_path / "a.png")
