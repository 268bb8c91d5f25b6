"""Which layers a resumption names as not going on bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.training.resumption import starts_again

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ('type: "SegmentationData"', None),
        ('type: "Data" transform_param { mirror: true crop_size: 3 }', None),
        ('type: "ImageData" image_data_param { shuffle: true }', None),
        ('type: "Dropout"', None),
        ('type: "BatchNorm"', None),
        ('type: "DummyData" dummy_data_param { data_filler { type: "constant" } }', None),
        ('type: "DummyData"', None),
        (
            'type: "DummyData" dummy_data_param { data_filler {} data_filler { type: "uniform" } }',
            "draws its values anew",
        ),
        ('type: "Pooling" pooling_param { pool: AVE }', None),
        ('type: "Pooling" pooling_param { pool: STOCHASTIC }', "draws anew"),
        ('type: "HDF5Data"', "reads from its first file again"),
        ('type: "WindowData"', "starts with its first windows again"),
        ('type: "LSTM"', "the state carried from batch to batch starts at zero"),
        ('type: "RNN"', "the state carried from batch to batch starts at zero"),
        ('type: "Python"', "what it remembers is in no snapshot"),
    ],
)
def test_layers(layer: str, reason: str | None) -> None:
    parsed = text_format.Parse(f'name: "x" {layer}', caffe_pb2.LayerParameter())
    assert starts_again([parsed]) == ([] if reason is None else [f"x ({parsed.type}: {reason})"])
    if reason is not None:
        assert f"`{parsed.type}`" in GUIDE.read_text()


def test_the_networks_here_go_on() -> None:
    """As README and guide promise."""
    files = sorted((GUIDE.parents[1] / "prototxt").glob("*/*/train_val.prototxt"))
    assert files
    for file in files:
        network = text_format.Parse(file.read_text(), caffe_pb2.NetParameter())
        assert starts_again(network.layer) == [], file
