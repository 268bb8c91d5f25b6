"""VOC2012 segmentation submission (competition 6: trained on any data): the folder tree, and the same packed."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from renet.common.errors import UserError, naming
from renet.common.files import write_atomically
from renet.data.catalog import VOC2012, bit_interleaved_palette
from renet.data.dataset import Dataset
from renet.data.image_formats import open_image, read_image_bytes
from renet.data.image_ids import named_file
from renet.data.label_maps import encode_label_map, read_label_map
from renet.data.split_reader import SplitReader
from renet.evaluation.scores import predicted_files, size_text

SUBFOLDER = Path("results/VOC2012/Segmentation/comp6_test_cls")
ARCHIVE = "results.tgz"


def check_is_voc2012(dataset: Dataset) -> None:
    """Refuse a submission of another dataset's classes, before any work is done for it.

    Raises:
        UserError: the dataset is not VOC2012.
    """
    if dataset.name != VOC2012.name:
        raise UserError(f"--comp6 is a VOC2012 submission; the dataset is {dataset.name}")


def image_sizes(split: Path) -> dict[str, tuple[int, int]]:
    """Read height and width of each image of a prepared split, by image id.

    Raises:
        UserError: no prepared split, or one whose images were shrunk: the server scores at their own size.
    """
    dataset = Dataset.of_split(split)
    if dataset is not None and dataset.image_scale != 1.0:
        raise UserError(
            f"{split}: prepared with --image-scale {dataset.image_scale:g}, but a submission has the images' own size"
        )
    with SplitReader(split) as reader:
        return {image_id: reader.image(index).shape[:2] for index, image_id in enumerate(reader.ids())}


def write_submission(
    predictions: Path,
    ids: Sequence[str],
    dataset: Dataset,
    folder: Path,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    suffix: str = "",
) -> Path:
    """Write the tree (see `write_comp6`), pack it into `folder/results.tgz`, and say so.

    Returns:
        The archive.

    Raises:
        UserError: as `write_comp6`; or the dataset is not VOC2012.
    """
    check_is_voc2012(dataset)
    (folder / ARCHIVE).unlink(missing_ok=True)  # an earlier one must not outlive its tree
    target = write_comp6(predictions, ids, dataset, folder, sizes, suffix)
    archive = pack_comp6(folder)
    print(f"{len(ids)} images written and checked: {target}")
    if len(ids) != VOC2012.images["test"]:
        print(f"VOC's evaluation server expects all {VOC2012.images['test']} images of the test set")
    print(f"packed for upload: {archive}")
    return archive


def write_comp6(
    predictions: Path,
    ids: Sequence[str],
    dataset: Dataset,
    folder: Path,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    suffix: str = "",
) -> Path:
    """Write `folder/results/VOC2012/Segmentation/comp6_test_cls/<image>.png` for every image, and check the result.

    Args:
        predictions: folder of label maps named by image id.
        ids: the images of the submission.
        dataset: VOC2012's classes.
        folder: where `results/` is to stand; what an earlier call wrote there is replaced.
        sizes: height and width of each image, where they are known.
        suffix: what the predictions' names end in after the image's id.

    Returns:
        The folder of the PNGs.

    Raises:
        UserError: a prediction is missing, no label map, of another size or names a class that VOC does not have;
            names the file.
    """
    files = predicted_files(predictions, ids, suffix)
    target = folder / SUBFOLDER
    beside = target.with_name(f".{target.name}.partial")
    if beside.exists():
        shutil.rmtree(beside)
    beside.mkdir(parents=True)
    try:
        for image_id, file in files.items():
            labels = read_label_map(file)
            _check_labels(file, labels, len(dataset.classes))
            if sizes is not None and labels.shape != sizes[image_id]:
                height, width = sizes[image_id]
                raise UserError(f"{file}: {size_text(labels)}, the image is {width} x {height}")
            with naming(target / f"{image_id}.png"):
                named_file(beside, image_id, ".png").write_bytes(encode_label_map(labels, dataset))
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    check_comp6(folder, ids, len(dataset.classes))
    return target


def check_comp6(folder: Path, ids: Iterable[str], classes: int) -> None:
    """Check a submission's tree as the evaluation server would: the right files, 8-bit palette, VOC's colours, classes.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    target = folder / SUBFOLDER
    if not target.is_dir():
        raise UserError(f"{target}: missing")
    expected = {f"{image_id}.png" for image_id in ids}
    present = {file.name for file in target.iterdir()}
    for name in sorted(expected - present):
        raise UserError(f"{target / name}: missing")
    for name in sorted(present - expected):
        raise UserError(f"{target / name}: not an image of this submission")
    colours = bit_interleaved_palette(classes).reshape(-1).tolist()
    for name in sorted(expected):
        file = target / name
        labels = read_label_map(file)
        image = open_image(read_image_bytes(file))  # read_label_map has shown that it is one
        palette = image.getpalette() if image.mode == "P" else None
        if palette is None or palette[: len(colours)] != colours:
            raise UserError(f"{file}: not a palette PNG in VOC's colours")
        _check_labels(file, labels, classes)


def pack_comp6(folder: Path) -> Path:
    """Pack a tree that `write_comp6` wrote into `folder/results.tgz`, and read the archive back.

    The same predictions give the same bytes: names in order, no times and no owners.

    Raises:
        UserError: what was read back is not what was packed.
    """
    files = sorted((folder / SUBFOLDER).iterdir())
    content = {str(SUBFOLDER / file.name): file.read_bytes() for file in files}
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for parent in (*reversed(SUBFOLDER.parents[:-1]), SUBFOLDER):
            entry = tarfile.TarInfo(str(parent))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    archive = folder / ARCHIVE
    write_atomically(archive, packed.getvalue())
    _check_archive(archive, content)
    return archive


def _check_archive(archive: Path, content: Mapping[str, bytes]) -> None:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
            same = {name: stream.read() for name, stream in files.items() if stream is not None} == content
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise UserError(f"{archive}: cannot be read back ({error})") from None
    if not same:
        raise UserError(f"{archive}: does not hold what was packed")


def _check_labels(file: Path, labels: np.ndarray, classes: int) -> None:
    highest = int(labels.max())
    if highest >= classes:
        raise UserError(f"{file}: the value {highest} is no class; classes are 0 to {classes - 1}")
