"""dataset.json, the reader and the writer of prepared splits."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
from data_prep_helpers import stock_decodings

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.progress import draws_bars, progress
from renet.conversion.prepare import OutputOptions, prepare, shuffled
from renet.data import split_writer
from renet.data.dataset import Dataset, SplitSummary
from renet.data.datum import Datum, pack_encoded, unpack_encoded
from renet.data.images import EncodedImage, encode_png, shrink_image, shrink_label
from renet.data.split_reader import SplitReader, records_sha256
from renet.data.split_writer import LeftOut, Pair, Sample, Settings, write_split

SETTINGS = Settings(classes=4, ignore_label=255)


def image_and_label(number: int, height: int = 12, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(number)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    label = random.choice(np.array([0, 1, 2, 3, 255], np.uint8), (height, width))
    return image, label


def sample(number: int, **size: int) -> Sample:
    def read() -> Pair:
        image, label = image_and_label(number, **size)
        return Pair(EncodedImage(encode_png(image), *label.shape), label)

    return Sample(id=f"image {number}", fingerprint=str(number), read=read, label_where=f"labels/{number}.png")


def bad_sample(number: int, message: str) -> Sample:
    def read() -> Pair:
        raise UserError(message)

    return Sample(id=f"bad {number}", fingerprint=message, read=read, label_where="-")


def unlabelled(number: int, **size: int) -> Sample:
    original = sample(number, **size)
    return Sample(original.id, original.fingerprint, lambda: Pair(original.read().image, None), None)


def left_out_sample(number: int, reason: str) -> Sample:
    def read() -> Pair:
        raise LeftOut(reason)

    return Sample(id=f"left {number}", fingerprint=reason, read=read, label_where="-")


def a_dataset(folder: Path) -> Dataset:
    return Dataset(
        name="two",
        classes=("near", "far"),
        palette=np.array([[1, 2, 3], [250, 251, 252]], np.uint8),
        mean=(104.5, 117.0, 123.25),
        ignore_label=255,
        splits={"fold0/train": SplitSummary(7, "ab" * 32)},
        folder=folder,
        image_scale=0.5,
        distant_context_classes=("far",),
        skipped={"fold0/train": ["x: broken"]},
    )


def test_dataset_survives_saving(tmp_path: Path) -> None:
    saved = a_dataset(tmp_path)
    saved.save()
    for path in (tmp_path, tmp_path / "dataset.json"):
        loaded = Dataset.open(path)
        assert np.array_equal(loaded.palette, saved.palette)
        for name in ("name", "classes", "mean", "ignore_label", "splits", "folder", "image_scale", "skipped"):
            assert getattr(loaded, name) == getattr(saved, name)
        assert loaded.distant_context_classes == ("far",)
    assert os.listdir(tmp_path) == ["dataset.json"]


def test_full_palette_has_the_classes_colours_and_white_for_ignored(tmp_path: Path) -> None:
    palette = a_dataset(tmp_path).full_palette()
    assert len(palette) == 768
    assert palette[:6] == [1, 2, 3, 250, 251, 252]
    assert palette[6:9] == [0, 0, 0]
    assert palette[-3:] == [255, 255, 255]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": None}, "classes"),
        ({"palette": [[0, 0, 0]]}, "palette has 1 colours for 2 classes"),
        ({"palette": [[0, 0, 0], [0, 0]]}, "palette.1 has 2 entries, not 3"),
        ({"palette": [[0, 0, 0], [0, 0, 256]]}, "palette.1.2 should be less than or equal to 255, not 256"),
        ({"palette": [[0, 0, 0], [0, 0, float("nan")]]}, "palette.1.2 should be a valid integer, not nan"),
        ({"classes": ["sky", "sky"]}, "classes has 'sky' twice"),
        ({"mean": [1, 2]}, "mean has 2 entries, not 3"),
        ({"mean": [1, 2, float("nan")]}, "mean.2 should be"),
        ({"mean": [1, 2, "3"]}, "mean.2 should be a valid number, not '3'"),
        ({"mean": [1, 2, 256]}, "mean.2 should be less than or equal to 255, not 256"),
        ({"image_scale": float("nan")}, "image_scale should be less than or equal to 1, not nan"),
        ({"ignore_label": 256}, "ignore_label must lie in 2..255, not 256"),
        ({"ignore_label": 0}, "a class's number; prepare the data with --map 0=255"),
        ({"ignore_label": 1}, "ignore_label"),
        ({"splits": {"train": {"count": 3}}}, "splits.train.sha256 is missing"),
        (
            {"splits": {"train": {"count": True, "sha256": ""}}},
            "splits.train.count should be a valid integer, not True",
        ),
        ({"splits": []}, "splits should be a valid dictionary, not []"),
        ({"part": {"number": 3, "count": 2, "training": []}}, "there is no part 3 of 2"),
        ({"distant_context_classes": ["sea"]}, "'sea'"),
    ],
)
def test_bad_description_names_the_file_and_what_is_wrong(tmp_path: Path, change: dict, words: str) -> None:
    a_dataset(tmp_path).save()
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError) as error:
        Dataset.open(tmp_path)
    assert str(file) in str(error.value)
    assert words in str(error.value)


def test_edited_description_is_not_overwritten(tmp_path: Path) -> None:
    arguments = {
        "name": "x",
        "classes": ["a", "b", "c", "d"],
        "palette": np.zeros((4, 3)),
        "splits": {"train": [sample(0)]},
        "training": ["train"],
    }
    prepare(OutputOptions(tmp_path), **arguments)
    prepare(
        OutputOptions(tmp_path), **arguments | {"palette": np.ones((4, 3))}
    )  # other colours in the class file: nothing is lost
    file = tmp_path / "dataset.json"
    assert Dataset.open(tmp_path).palette.max() == 1
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content))  # the same in another form
    prepare(OutputOptions(tmp_path), **arguments)
    edited = json.dumps(content | {"palette": [[9, 9, 9]] * 4})
    file.write_text(edited)
    for splits in (arguments["splits"], {"train": [sample(0)], "test": [sample(1)]}):
        with pytest.raises(UserError, match=r"dataset\.json: was edited, and would be written anew"):
            prepare(OutputOptions(tmp_path), **arguments | {"splits": splits})
    assert file.read_text() == edited and not (tmp_path / "test").exists()
    assert Dataset.open(tmp_path).palette.max() == 9
    del content["written_sha256"]  # as an earlier version wrote it
    file.write_text(json.dumps(content))
    prepare(OutputOptions(tmp_path), **arguments)


def test_missing_and_broken_descriptions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "dataset.json"))):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="not JSON, or a part of it"):
        Dataset.open(tmp_path)


def test_datum_on_the_wire() -> None:
    # Field numbers of caffe.proto: channels 1, height 2, width 3, data 4, label 5, encoded 7.
    assert pack_encoded(b"PNG", 3, 4, 5) == bytes.fromhex("0803 1004 1805 2203 504e47 2800 3801".replace(" ", ""))
    assert unpack_encoded(pack_encoded(b"PNG", 3, 4, 5)) == b"PNG"
    with pytest.raises(ValueError, match="no Caffe Datum"):
        unpack_encoded(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="no encoded image"):
        unpack_encoded(Datum(channels=1, height=1, width=1, data=b"x").SerializeToString())


def test_datum_is_caffes() -> None:
    caffe_pb2 = pytest.importorskip("caffe.proto.caffe_pb2", reason="Caffe is not built")
    theirs = caffe_pb2.Datum.FromString(pack_encoded(b"PNG", 3, 4, 5))
    fields = (theirs.channels, theirs.height, theirs.width, theirs.data, theirs.label, theirs.encoded)
    assert fields == (3, 4, 5, b"PNG", 0, True)
    assert unpack_encoded(theirs.SerializeToString()) == b"PNG"
    assert {f.name: f.number for f in Datum.DESCRIPTOR.fields} == {f.name: f.number for f in theirs.DESCRIPTOR.fields}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write_split(tmp_path / "train", [sample(n) for n in range(70)], SETTINGS)
    assert sorted(os.listdir(tmp_path)) == ["train"]
    with SplitReader(tmp_path / "train") as reader:
        assert len(reader) == written.summary.count == 70
        assert reader.keys()[69] == "00000069_image 69"
        assert reader.ids()[:2] == ["image 0", "image 1"]
        for n in (0, 31, 32, 69):
            image, label = image_and_label(n)
            assert np.array_equal(reader.image(n), image)
            assert np.array_equal(reader.label(n), label)
            for decoded in stock_decodings(reader.image_bytes(n)):
                assert np.array_equal(decoded, image)
        assert records_sha256(reader) == written.summary.sha256
    sums = np.sum([image_and_label(n)[0].sum(axis=(0, 1), dtype=np.int64) for n in range(70)], axis=0)
    assert written.channel_sums == tuple(sums)
    assert written.pixels == 70 * 12 * 16


def test_several_processes_read_at_once(tmp_path: Path) -> None:
    write_split(tmp_path / "train", [sample(n) for n in range(3)], SETTINGS)
    (tmp_path / "train" / "images.lmdb").chmod(0o555)
    program = (
        "import sys; from renet.data.split_reader import SplitReader; print(SplitReader(sys.argv[1]).image(2).sum())"
    )
    with SplitReader(tmp_path / "train") as reader:
        command = [sys.executable, "-c", program, str(tmp_path / "train")]
        repository = Path(split_writer.__file__).parents[2]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=repository) for _ in range(2)]
        assert [int(child.communicate()[0]) for child in children] == [reader.image(2).sum()] * 2


def test_database_grows_beyond_its_first_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "FIRST_MAP_SIZE", 1 << 16)
    write_split(tmp_path / "train", [sample(n, height=60, width=80) for n in range(40)], SETTINGS)
    with SplitReader(tmp_path / "train") as reader:
        assert sum(len(reader.image_bytes(n)) for n in range(40)) > 4 << 16
        assert np.array_equal(reader.image(39), image_and_label(39, 60, 80)[0])


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = {tests!r}
    from test_dataset import SETTINGS, sample, unlabelled
    from renet.data import split_writer

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    where = sys.argv[2]
    samples = [(unlabelled if where == "without labels" else sample)(n) for n in range(100)]
    if where in ("reading", "without labels"):
        samples[70] = split_writer.Sample(samples[70].id, samples[70].fingerprint, die, samples[70].label_where)
    elif where == "between the databases":
        put, calls = split_writer._Database.put, []
        def put_then_die(self, records):
            calls.append(self) or len(calls) != 6 or die()  # the third batch's labels
            put(self, records)
        split_writer._Database.put = put_then_die
    elif where == "before the note":
        save, calls = split_writer._State.save, []
        def save_or_die(self, folder):
            calls.append(self) or len(calls) != 4 or die()  # first the empty state, then one a batch
            save(self, folder)
        split_writer._State.save = save_or_die
    elif where == "verifying":
        split_writer.records_sha256 = die
    elif where == "before the rename":
        split_writer.Path.rename = die
    split_writer.write_split(Path(sys.argv[1]), samples, SETTINGS)
    """
)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("reading", 64),
        ("without labels", 64),
        ("between the databases", 64),
        ("before the note", 64),
        ("verifying", 100),
        ("before the rename", 100),
    ],
)
def test_killed_conversion_goes_on_where_it_was(tmp_path: Path, where: str, kept: int) -> None:
    place = tmp_path / "train"
    program = KILLED.format(tests=[str(folder) for folder in Path(__file__).parents[:2]])
    repository = Path(split_writer.__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", program, str(place), where], cwd=repository, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not place.exists()

    reads: list[int] = []

    make = unlabelled if where == "without labels" else sample

    def counted(n: int) -> Sample:
        original = make(n)

        def read() -> Pair:
            reads.append(n)
            return original.read()

        return Sample(original.id, original.fingerprint, read, original.label_where)

    resumed = write_split(place, [counted(n) for n in range(100)], SETTINGS)
    assert reads == list(range(kept, 100))
    unbroken = write_split(tmp_path / "unbroken", [make(n) for n in range(100)], SETTINGS)
    assert resumed == unbroken
    assert sorted(os.listdir(tmp_path)) == ["train", "unbroken"]


def test_second_call_takes_over_and_other_wishes_are_refused(tmp_path: Path) -> None:
    samples = [sample(n) for n in range(5)]
    first = write_split(tmp_path / "train", samples, SETTINGS)
    stamp = (tmp_path / "train" / "images.lmdb" / "data.mdb").stat().st_mtime_ns
    assert write_split(tmp_path / "train", samples, SETTINGS) == first
    assert (tmp_path / "train" / "images.lmdb" / "data.mdb").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="other settings"):
        write_split(tmp_path / "train", samples, Settings(classes=5, ignore_label=255))
    with pytest.raises(UserError, match="other files"):
        write_split(tmp_path / "train", samples[:4], SETTINGS)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="no prepared split"):
        write_split(tmp_path / "mine", samples, SETTINGS)
    assert os.listdir(tmp_path / "mine") == []


def test_partial_of_another_wish_is_started_again(tmp_path: Path) -> None:
    samples = [sample(n) for n in range(40)]
    with pytest.raises(UserError, match="broken"):
        write_split(tmp_path / "train", [*samples, bad_sample(0, "broken")], SETTINGS)
    other = [sample(n) for n in range(100, 140)]
    result = write_split(tmp_path / "train", other, SETTINGS)
    assert result == write_split(tmp_path / "fresh", other, SETTINGS)


def test_mended_sample_does_not_cost_what_was_done_before_it(tmp_path: Path) -> None:
    samples = [sample(n) for n in range(40)]
    with pytest.raises(UserError):
        write_split(tmp_path / "train", [*samples, bad_sample(0, "broken")], SETTINGS)
    state = json.loads((tmp_path / ".train.partial" / "split.json").read_text())
    assert state["done"] == 32
    mended = write_split(tmp_path / "train", [*samples, sample(77)], SETTINGS)
    assert mended == write_split(tmp_path / "fresh", [*samples, sample(77)], SETTINGS)


def wrong_label(values: np.ndarray) -> Sample:
    image, _ = image_and_label(1)
    pair = Pair(EncodedImage(encode_png(image), *image.shape[:2]), values)
    return Sample("one", "1", lambda: pair, "labels/one.png")


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([wrong_label(np.zeros((16, 12), np.uint8))], "labels/one.png: the label is 12 x 16 .* its image 16 x 12"),
        ([wrong_label(np.full((12, 16), 4))], r"labels/one.png: label value 4 is out of range: 0\.\.3"),
        ([wrong_label(np.full((12, 16), -1))], "label value -1"),
        ([wrong_label(np.full((12, 16), 300))], "label value 300"),
        (
            [bad_sample(0, "a.jpg: broken"), sample(0), bad_sample(1, "b.jpg: broken")],
            r"^a.jpg: broken; the same in bad 1 \(2 of 3 samples are bad\); mend it or leave it out with --skip-bad$",
        ),
        ([sample(0), sample(0)], "image 0 comes twice"),
        ([], "no image"),
        ([Sample("x" * 600, "", sample(0).read, "-")], "too long"),
    ],
)
def test_bad_samples_are_named_and_nothing_is_put_in_place(tmp_path: Path, samples: list[Sample], words: str) -> None:
    with pytest.raises(UserError, match=words):
        write_split(tmp_path / "train", samples, SETTINGS, skip_bad=False)
    assert not (tmp_path / "train").exists()


def test_each_kind_of_complaint_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [bad_sample(n, f"{n}.jpg: broken") for n in range(14)]
    samples += [wrong_label(np.full((12, 16), 7)), bad_sample(20, "20.jpg: empty")]
    advice = "{} of {} classes".format
    with pytest.raises(UserError) as told:
        write_split(tmp_path / "train", samples, SETTINGS, label_advice=advice)
    others = capsys.readouterr().err.splitlines()
    named = ", ".join(f"bad {n}" for n in range(1, 11))
    assert str(told.value) == (
        f"0.jpg: broken; the same in {named} and 3 more (16 of 16 samples are bad); {{7}} of 4 classes"
    )
    assert [line for line in others if "labels/one.png: label value 7" in line]
    assert [line for line in others if line == "20.jpg: empty"]
    with pytest.raises(UserError) as told:  # a caller without the option
        write_split(tmp_path / "train", [sample(0), *samples[:1]], SETTINGS)
    assert str(told.value) == "0.jpg: broken"
    with pytest.raises(UserError, match=r"every sample is bad, the first: .* of 4 classes"):
        write_split(tmp_path / "other", samples, SETTINGS, skip_bad=True, label_advice=advice)


def test_skip_bad_lists_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [sample(0), bad_sample(1, "b.jpg: broken"), sample(2)]
    arguments = {
        "name": "x",
        "classes": ["a", "b", "c", "d"],
        "palette": np.zeros((4, 3)),
        "splits": {"train": samples},
        "training": ["train"],
    }
    prepare(OutputOptions(tmp_path, skip_bad=True), **arguments)
    assert "skipped bad 1: b.jpg: broken" in capsys.readouterr().out
    dataset = Dataset.open(tmp_path)
    assert dataset.skipped == {"train": ["bad 1: b.jpg: broken"]}
    assert dataset.splits["train"].count == 2
    with SplitReader(tmp_path / "train") as reader:
        assert reader.keys() == ["00000000_image 0", "00000001_image 2"]
    with pytest.raises(UserError, match="--skip-bad"):
        prepare(OutputOptions(tmp_path), **arguments)
    with pytest.raises(UserError, match="every sample is bad"):
        prepare(OutputOptions(tmp_path / "other", skip_bad=True), **{**arguments, "splits": {"train": samples[1:2]}})


def test_two_conversions_do_not_write_the_same_folder(tmp_path: Path) -> None:
    with (
        split_writer.exclusive(tmp_path / "out"),
        pytest.raises(UserError, match="another conversion"),
        split_writer.exclusive(tmp_path / "out"),
    ):
        pass


def test_shrinking_averages_images_and_picks_labels_at_centres(tmp_path: Path) -> None:
    image, label = image_and_label(5, 7, 9)
    settings = Settings(classes=4, ignore_label=255, image_scale=1 / 3)
    write_split(tmp_path / "train", [sample(5, height=6, width=9)], settings)
    image, label = image_and_label(5, 6, 9)
    with SplitReader(tmp_path / "train") as reader:
        small, small_label = reader.image(0), reader.label(0)
    means = image.reshape(2, 3, 3, 3, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.5 + 1e-6
    assert np.array_equal(small_label, label[1::3, 1::3])
    # Sizes that do not divide keep image and label together.
    for height, width, scale in ((7, 9, 0.5), (1, 5, 0.1), (241, 321, 0.5)):
        image, label = image_and_label(1, height, width)
        assert shrink_image(image, scale).shape[:2] == shrink_label(label, scale).shape
    assert np.array_equal(shrink_label(np.arange(5, dtype=np.uint8)[None], 0.4), [[1, 3]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"name": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"name": "\xff"}', "not UTF-8"),
        (b"{}", "name is missing"),
        (b"7", "should be a valid dictionary, not 7"),
    ],
)
def test_what_is_no_description(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"dataset\.json.*{words}"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("share", [8192, 0.5, 0.9])
@pytest.mark.parametrize("database", ["images.lmdb", "labels.lmdb"])
def test_a_copy_that_was_interrupted(tmp_path: Path, database: str, share: float) -> None:
    """It would end the process with a bus error as soon as a page beyond the end is looked at."""
    write_split(tmp_path / "train", [sample(n) for n in range(40)], SETTINGS)
    file = tmp_path / "train" / database / "data.mdb"
    size = file.stat().st_size
    os.truncate(file, share if share > 1 else int(share * size))
    with pytest.raises(UserError, match=rf"{database}/data\.mdb: has [\d,]+ of the {size:,} bytes .*interrupted"):
        SplitReader(tmp_path / "train")


def test_an_image_of_another_size_than_its_label(tmp_path: Path) -> None:
    write_split(tmp_path / "train", [sample(n) for n in range(3)], SETTINGS)
    environment = lmdb.open(str(tmp_path / "train" / "labels.lmdb"), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        small = np.zeros((5, 7), np.uint8)
        transaction.put(b"00000001_image 1", pack_encoded(encode_png(small), 1, 5, 7))
        transaction.put(b"00000002_image 2", b"\xff")
    environment.close()
    with SplitReader(tmp_path / "train") as reader:
        for read in (reader.image, reader.label):
            with pytest.raises(UserError, match="00000001_image 1: the image is 16 x 12, its label 7 x 5"):
                read(1)
        with pytest.raises(UserError, match=r"labels\.lmdb: record 00000002_image 2: the record is no Caffe Datum"):
            reader.image(2)


def test_reader_names_what_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a prepared split: images\.lmdb is missing"):
        SplitReader(tmp_path)
    write_split(tmp_path / "train", [sample(n) for n in range(3)], SETTINGS)

    def put(database: str, key: bytes, value: bytes | None) -> None:
        environment = lmdb.open(str(tmp_path / "train" / database), map_size=1 << 24)
        with environment.begin(write=True) as transaction:
            transaction.put(key, value) if value is not None else transaction.delete(key)
        environment.close()

    put("images.lmdb", b"00000001_image 1", pack_encoded(b"no image", 3, 12, 16))
    put("labels.lmdb", b"00000002_image 2", pack_encoded(encode_png(image_and_label(2)[0]), 3, 12, 16))
    with SplitReader(tmp_path / "train") as reader:
        assert reader.image(0).shape == (12, 16, 3)
        with pytest.raises(UserError, match="00000001_image 1 is not an image"):
            reader.image(1)
        with pytest.raises(UserError, match="00000002_image 2 is not an 8-bit grey"):
            reader.label(2)
    put("labels.lmdb", b"00000002_image 2", None)
    with pytest.raises(UserError, match="different keys"):
        SplitReader(tmp_path / "train")
    (tmp_path / "train" / "images.lmdb" / "data.mdb").write_bytes(b"not LMDB" * 4096)
    with pytest.raises(UserError, match="not a readable LMDB"):
        SplitReader(tmp_path / "train")


def test_split_without_labels(tmp_path: Path) -> None:
    samples = [unlabelled(n) for n in range(40)]
    written = write_split(tmp_path / "test", samples, SETTINGS)
    assert sorted(os.listdir(tmp_path / "test")) == ["images.lmdb", "split.json"]
    with SplitReader(tmp_path / "test") as reader:
        assert not reader.has_labels
        assert reader.label(0) is None
        assert reader.ids() == [f"image {n}" for n in range(40)]
        assert all(np.array_equal(reader.image(n), image_and_label(n)[0]) for n in range(40))
        assert records_sha256(reader) == written.summary.sha256
    sums = np.sum([image_and_label(n)[0].sum(axis=(0, 1), dtype=np.int64) for n in range(40)], axis=0)
    assert (written.channel_sums, written.pixels) == (tuple(sums), 40 * 12 * 16)
    assert write_split(tmp_path / "test", samples, SETTINGS) == written
    # The same images with labels are another split.
    with pytest.raises(UserError, match="other files"):
        write_split(tmp_path / "test", [sample(n) for n in range(40)], SETTINGS)
    half = write_split(tmp_path / "half", samples, Settings(classes=4, ignore_label=255, image_scale=0.5))
    assert half.pixels == 40 * 6 * 8


def test_partial_split_with_labels_is_not_taken_for_one_without(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        write_split(tmp_path / "test", [*(sample(n) for n in range(40)), bad_sample(0, "broken")], SETTINGS)
    assert (tmp_path / ".test.partial/labels.lmdb").exists()
    write_split(tmp_path / "test", [unlabelled(n) for n in range(40)], SETTINGS)
    with SplitReader(tmp_path / "test") as reader:
        assert not reader.has_labels
    with pytest.raises(ValueError, match="all or none"):
        write_split(tmp_path / "mixed", [sample(0), unlabelled(1)], SETTINGS)


def test_left_out_samples_are_counted_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [left_out_sample(n, "too small") for n in range(59)]
    samples = [sample(0), small[0], sample(1), left_out_sample(59, "too dark"), *small[1:], sample(2)]
    arguments = {
        "name": "x",
        "classes": list("abcd"),
        "palette": np.zeros((4, 3)),
        "splits": {"train": samples},
        "training": ["train"],
    }
    for _ in range(2):
        prepare(OutputOptions(tmp_path), **arguments)
        printed = capsys.readouterr().out
        assert "train: 3 images\n" in printed
        assert "train: 59 images left out: too small\n" in printed
        assert "train: 1 images left out: too dark\n" in printed
    assert Dataset.open(tmp_path).skipped == {}
    with SplitReader(tmp_path / "train") as reader:
        assert reader.keys() == [f"0000000{n}_image {n}" for n in range(3)]
    with pytest.raises(UserError, match=r"would hold no image \(1 images: too small\)"):
        write_split(tmp_path / "none", samples[1:2], SETTINGS)


def test_shuffling_depends_on_the_seed_alone() -> None:
    ids = [f"{n:03d}" for n in range(50)]
    assert shuffled(ids, 1) == shuffled(ids[::-1], 1) != shuffled(ids, 2)
    assert sorted(shuffled(ids, 1)) == ids
    assert shuffled(["a", "b", "c", "d"], 0) == ["c", "b", "d", "a"]  # fixed for good: folds must never change


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("x.png: broken\nby\nlines"), 2, "tool: x.png: broken by lines"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "tool: a.txt: No such file or directory"),
        (OSError(28, "No space left on device"), 2, "tool: No space left on device"),
        (KeyboardInterrupt(), 130, "tool: interrupted"),
    ],
)
def test_errors_become_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    def main(arguments: argparse.Namespace) -> None:
        raise error

    assert run(main, argparse.ArgumentParser("tool"), []) == status
    assert capsys.readouterr().err == line + "\n"


def test_wrong_arguments_are_one_line_and_bugs_are_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: argparse.Namespace) -> None:
        raise ValueError("a bug")

    with pytest.raises(SystemExit) as leaving:
        run(main, argparse.ArgumentParser("tool"), ["--nonsense"])
    assert leaving.value.code == 2
    assert capsys.readouterr().err == "tool: unrecognized arguments: --nonsense (--help explains)\n"
    with pytest.raises(ValueError, match="a bug"):
        run(main, argparse.ArgumentParser("tool"), [])


def test_a_log_gets_ever_fewer_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [time.time()]  # never behind the clock of tqdm's own thread, which adds lines where none came for long
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    for _ in progress(range(100_000), description="work", unit="image"):
        clock[0] += 1.0
    told = [int(line.split()[1].partition("/")[0]) for line in capsys.readouterr().err.splitlines()]
    gaps = np.diff(told)[:-1]
    assert gaps[0] == pytest.approx(10, abs=1)
    late = gaps[np.array(told[1:-1]) > 10_000]
    assert late.size
    assert np.abs(late - 300).max() < 30
    assert len(told) < 500


@pytest.mark.parametrize(
    ("environment", "bar"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({}, True)],
)
def test_a_bar_is_drawn_where_a_terminal_can(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], bar: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert draws_bars() == bar
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert not draws_bars()


def test_progress_is_plain_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(1000), description="work", unit="image")) == list(range(1000))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[-1].startswith("work: 1000/1000 image [")
    assert "\r" not in "".join(lines)
