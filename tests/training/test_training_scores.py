"""Which of a network's losses scores are of, and what they count."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from segmentation_helpers import write_dataset_json

from renet.common.errors import UserError
from renet.training.scores import Head, check_classes, find_heads, main_head, told, total_loss

INPUTS = """
layer { name: "in" type: "DummyData" top: "a" top: "b" top: "label" top: "one" top: "same" dummy_data_param {
  shape { dim: 2 dim: 3 dim: 4 dim: 5 } shape { dim: 2 dim: 3 dim: 4 dim: 5 } shape { dim: 2 dim: 1 dim: 4 dim: 5 }
  shape { dim: 2 dim: 1 dim: 4 dim: 5 } shape { dim: 2 dim: 3 dim: 4 dim: 5 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "p" type: "Softmax" bottom: "a" top: "p" }
"""
SOFTMAX = 'layer { name: "%s" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "%s" %s }'
ACCURACY = 'layer { name: "accuracy" type: "Accuracy" bottom: "a" bottom: "label" top: "accuracy" %s }'


def built(tmp_path: Path, *layers: str) -> tuple[caffe.Net, list[Head]]:
    file = tmp_path / "net.prototxt"
    file.write_text(INPUTS + "\n".join(layers))
    description = text_format.Parse(file.read_text(), caffe_pb2.NetParameter())
    network = caffe.Net(str(file), caffe.TEST)
    return network, find_heads(network, description.layer)


def infogain(tmp_path: Path) -> str:
    matrix = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[1, 1, 3, 3]), data=np.eye(3).ravel())
    (tmp_path / "h.binaryproto").write_bytes(matrix.SerializeToString())
    return (
        'layer { name: "infogain" type: "InfogainLoss" bottom: "a" bottom: "label" top: "infogain"'
        f' infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }} loss_param {{ ignore_label: 2 }} }}'
    )


def test_the_main_loss_is_the_heaviest_and_of_equals_the_last(tmp_path: Path) -> None:
    auxiliary = SOFTMAX % ("auxiliary", "a", "l1", "loss_weight: 0.4")
    network, heads = built(tmp_path, auxiliary, SOFTMAX % ("main", "b", "l2", ""))
    assert [(head.layer, round(head.weight, 6)) for head in heads] == [("auxiliary", 0.4), ("main", 1)]
    assert main_head(heads).layer == "main"
    assert told(heads) == "scores: of the layer main (weight 1), not of auxiliary (weight 0.4)"
    network.forward()
    assert total_loss(network) == pytest.approx(1.4 * np.log(3))
    _, heads = built(tmp_path, SOFTMAX % ("first", "a", "l1", ""), SOFTMAX % ("last", "b", "l2", ""))
    assert main_head(heads).layer == "last"
    _, heads = built(tmp_path, SOFTMAX % ("main", "b", "l2", "loss_weight: 2"), SOFTMAX % ("late", "a", "l1", ""))
    assert main_head(heads).layer == "main"
    _, heads = built(tmp_path, SOFTMAX % ("only", "b", "l2", ""))
    assert told(heads) is None


def test_scores_of_every_loss_over_scores_and_labels(tmp_path: Path) -> None:
    _, heads = built(tmp_path, infogain(tmp_path))
    assert [(head.layer, head.classes, head.ignore_label) for head in heads] == [("infogain", 3, 2)]
    _, heads = built(tmp_path, ACCURACY % "accuracy_param { ignore_label: 1 }")
    assert [(head.layer, head.ignore_label) for head in heads] == [("accuracy", 1)]
    assert told(heads) is None
    _, heads = built(tmp_path, ACCURACY % "", SOFTMAX % ("loss", "b", "l", ""))
    assert [head.layer for head in heads] == ["loss"], "an accuracy only where there is no loss"


def test_losses_that_compare_no_classes(tmp_path: Path) -> None:
    euclidean = 'layer { name: "e" type: "EuclideanLoss" bottom: "%s" bottom: "%s" top: "e" }'
    for bottoms in (("a", "same"), ("one", "label")):
        assert built(tmp_path, euclidean % bottoms)[1] == []
    sigmoid = 'layer { name: "s" type: "SigmoidCrossEntropyLoss" bottom: "one" bottom: "label" top: "s" }'
    assert built(tmp_path, sigmoid)[1] == []
    assert main_head([]) is None


def head(labels: np.ndarray, ignore_label: int = 255, classes: int = 4) -> Head:
    """A head whose scores make every class the largest in turn."""
    scores = np.moveaxis(np.eye(classes)[np.arange(labels.size) % classes], 1, 0).reshape(1, classes, *labels.shape)
    blob = SimpleNamespace(data=labels[None, None].astype(np.float32))
    return Head("loss", 1.0, SimpleNamespace(data=scores, shape=scores.shape), blob, ignore_label, "label")


@pytest.mark.parametrize("ignored", [255, 3, 0, -1, 1000])
def test_ignored_labels_count_nowhere_whatever_their_value(ignored: int) -> None:
    labels = np.array([[1, 2, 1, ignored], [ignored, 2, 2, ignored]])
    confusion = head(labels, ignored).count()
    expected = np.zeros((4, 4), int)
    for truth, prediction in ((1, 0), (2, 1), (1, 2), (2, 1), (2, 2)):
        expected[truth, prediction] += 1
    assert np.array_equal(confusion, expected)


@pytest.mark.parametrize(("value", "shown"), [(-1, "-1"), (300, "300"), (1.5, "1.5"), (4, "4"), (np.nan, "nan")])
def test_labels_that_are_no_class(value: float, shown: str) -> None:
    with pytest.raises(UserError, match=rf"layer 'loss' got the label {shown}; expected 0 to 3, or 255 \(ignored\)"):
        head(np.array([[0, value], [1, 255]])).count()


@pytest.mark.parametrize(
    ("outputs", "ignored", "message"),
    [(2, 255, "num_output"), (3, 255, None), (4, 255, "the others will never be right"), (2, 2, None)],
)
@pytest.mark.parametrize("kind", ["SegmentationData", "Data"])
def test_classes_of_the_dataset(tmp_path: Path, outputs: int, ignored: int, message: str | None, kind: str) -> None:
    file = write_dataset_json(tmp_path / "things")
    layer = caffe_pb2.LayerParameter(type=kind, top=["label"])
    if kind == "Data":
        layer.data_param.source = str(tmp_path / "things" / "train" / "labels.lmdb")
    else:
        layer.segmentation_data_param.source.extend([str(tmp_path / "things" / "train")] * 2)
    heads = [head(np.zeros((1, outputs)), ignored, outputs)]
    if message == "num_output":
        with pytest.raises(UserError, match=f"layer 'loss' gets scores of 2 classes, and {file} has 3: num_output"):
            list(check_classes(heads, [layer], "net.prototxt"))
        return
    notes = list(check_classes(heads, [layer], "net.prototxt"))
    assert len(notes) == (message is not None)
    assert all(message in note for note in notes)
    assert list(check_classes(heads, [layer, caffe_pb2.LayerParameter(type="Python", top=["label"])], "net")) == []
    layer.top[0] = "something else"
    assert list(check_classes(heads, [layer], "net.prototxt")) == []
