"""Training samples as a network sees them: cropped, mirrored and augmented by its SegmentationData layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from PIL import Image

from renet.common.errors import UserError
from renet.common.scratch import scratch_file
from renet.data.catalog import find_dataset
from renet.data.overlay import blend
from renet.training.files import TrainingFiles, read_training_layers
from renet.visualization.sheet import photograph, sheet

LAYER = "SegmentationData"


def data_layer(solver: Path | None, model: Path | None) -> caffe_pb2.LayerParameter:
    """Find the SegmentationData layer that a solver's training, or a network in its TRAIN phase, reads.

    Raises:
        UserError: no such file, no such layer or none with labels, or its data is missing; names the file.
    """
    layers = read_training_layers(model) if solver is None else TrainingFiles.read(solver).training_layers
    found = next((layer for layer in layers if layer.type == LAYER), None)
    if found is None:
        raise UserError(f"{solver or model}: has no {LAYER} layer in phase TRAIN")
    if len(found.top) != 2:
        raise UserError(f"{solver or model}: layer {found.name!r} has no top for labels")
    return found


def read_samples(layer: caffe_pb2.LayerParameter, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read the first samples of a training, each an H x W x 3 uint8 image (BGR, the mean added back) and H x W labels.

    Args:
        layer: of type SegmentationData.
        count: of samples.
    """
    alone = caffe_pb2.LayerParameter()
    alone.CopyFrom(layer)
    alone.ClearField("include")
    alone.ClearField("exclude")
    # Which sample comes next does not depend on how many make a batch.
    parameter = alone.segmentation_data_param
    parameter.batch_size = 1
    text = text_format.MessageToString(caffe_pb2.NetParameter(layer=[alone]))
    with scratch_file(text, ".prototxt") as file:
        network = caffe.Net(str(file), caffe.TRAIN)
    mean = np.array(parameter.mean_value or [0.0], np.float32)
    for _ in range(count):
        network.forward()
        data, label = (network.blobs[name].data[0] for name in alone.top)
        image = data.transpose(1, 2, 0) / parameter.scale + mean
        yield image.round().clip(0, 255).astype(np.uint8), label[0].astype(np.int64)


def samples(layer: caffe_pb2.LayerParameter, dataset: str | None, count: int, width: int) -> Iterator[Image.Image]:
    """Draw the first samples of a training, each beside its labels; ignored pixels keep the image's colours.

    Args:
        layer: of type SegmentationData.
        dataset: its name or dataset.json, for the classes' colours; None: found beside the layer's source.
        count: of samples.
        width: of one picture, pixels.

    Raises:
        UserError: the dataset is not known.
    """
    parameter = layer.segmentation_data_param
    described = find_dataset(dataset, Path(parameter.source[0]))
    pictures: list[Image.Image] = []
    for image, label in read_samples(layer, count):
        classes = np.where(label == parameter.ignore_label, described.ignore_label, label).astype(np.uint8)
        pictures += [photograph(image), Image.fromarray(blend(image, classes, described))]
    # Whole images differ in height, so each takes a row.
    columns = 4 if parameter.crop_height and count > 1 else 2
    pictures += [Image.new("RGB", pictures[0].size, "white")] * (-len(pictures) % columns)
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    yield sheet(rows, ["image", "labels"] * (columns // 2), described, width)
