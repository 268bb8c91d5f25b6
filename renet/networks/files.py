"""Files of one model and dataset: train_val.prototxt, deploy.prototxt, deploy_crf.prototxt and a solver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import caffe
from caffe import layers as L
from caffe.proto import caffe_pb2

from renet.networks.augmentation import augmentation_fields, augmentation_names
from renet.networks.dense_crf import dense_crf
from renet.networks.models import Model
from renet.networks.protocol import Protocol
from renet.networks.schedules import Schedule, solver_text
from renet.networks.sealed_files import sealed
from renet.networks.spec import Network, Options, comment_lines

TRAIN_VAL = "train_val.prototxt"
WEIGHTS_COMMENT = (
    "VGG-16's convolutions, by their layers' names: data_prep/vgg16.py makes this file. The other layers start anew."
)


@dataclass(frozen=True)
class Data:
    """Data that a network learns from and is tested on.

    Attributes:
        name: of the dataset, as in file names.
        classes: number of labels C.
        ignore_label: label that counts nowhere.
        train: folders of the splits that it learns from, read as one.
        test: folder of the split that it is tested on.
        test_images: number of images there.
        tested_images: how many of them, from the first on, are tested while training; None: all.
        test_comment: what else is to be said about the test.
    """

    name: str
    classes: int
    ignore_label: int
    train: tuple[str, ...]
    test: str
    test_images: int
    tested_images: int | None = None
    test_comment: str = ""


def train_val_text(model: Model, name: str, data: Data, options: Options) -> str:
    """Write the training and testing network as prototxt; `name` is the network's."""
    common: dict[str, Any] = {"mean_value": list(options.mean), "ignore_label": data.ignore_label}
    if model.input_scale != 1:
        common["scale"] = model.input_scale
    protocol = model.protocol
    crop = {"crop_height": options.crop[0], "crop_width": options.crop[1]}
    train = Network(data.classes)
    train_data, _ = L.SegmentationData(
        ntop=2,
        include={"phase": caffe.TRAIN},
        segmentation_data_param={
            "source": list(data.train),
            "batch_size": options.batch,
            **({} if options.whole_images else crop),
            **({"mirror": True} if protocol.mirror else {}),
            "shuffle": True,
            "seed": 0,
            **common,
            **augmentation_fields(options.augment),
        },
    )
    comment = protocol.data if options.whole_images or not protocol.whole_images else "Random crops."
    if options.augment:
        comment += (
            f"\nAugmented by {augmentation_names(options.augment)}, which the paper is not; the ranges may be edited."
        )
    train.add("data", train_data, comment)
    train.spec.label = train_data.fn.tops[1]

    network = Network(data.classes, model.input_scale)
    test_data, label = L.SegmentationData(
        ntop=2,
        include={"phase": caffe.TEST},
        segmentation_data_param={
            "source": [data.test],
            "batch_size": 1,
            **(crop if protocol.fixed_size else {}),
            **common,
        },
    )
    network.add("data", test_data, f"{protocol.test}\n{data.test_comment}")
    network.spec.label = label
    model.build(network, options)
    shrunk = protocol.label_step > 1
    in_test = {"include": {"phase": caffe.TEST}}
    if shrunk:
        _learn_at_the_scores(network, model, data, options)
    if protocol.interpolated:
        _upsample(network, protocol, **(in_test if shrunk else {}))
    if model.trained_crf is not None:
        dense_crf(network, options, model.trained_crf, learn=True, train=True, origin=model.crf_origin)
    scores = network.last
    loss_param = {"ignore_label": data.ignore_label, **_loss_choices(model, options)}
    network.add(
        "loss",
        L.SoftmaxWithLoss(scores, label, loss_param=loss_param, **(in_test if shrunk else {})),
        "The same loss, of all pixels." if shrunk else _loss_comment(model, options),
    )
    network.add(
        "accuracy",
        L.Accuracy(scores, label, **in_test, accuracy_param={"ignore_label": data.ignore_label}),
        "Share of right pixels, image by image.",
    )
    return (
        comment_lines(model.headline) + f'name: "{name}"\n\n' + train.text() + "\n" + network.text(options.new_layers)
    )


def deploy_text(model: Model, name: str, classes: int, options: Options, crf: bool = False) -> str:
    """Write the network for new images as prototxt: input `data`, output `prob` (N x C x H x W).

    Args:
        model: of `MODELS`.
        name: the network's.
        classes: number of labels C.
        options: of the network.
        crf: a dense CRF takes the softmax's place; a model that is trained with one always ends in it.
    """
    network = Network(classes, model.input_scale)
    transform: dict[str, Any] = {"mean_value": list(options.mean)}
    if model.input_scale != 1:
        transform["scale"] = model.input_scale
    scaled = ", times the scale" if "scale" in transform else ""
    network.add(
        "data",
        L.Input(input_param={"shape": {"dim": [1, 3, *options.crop]}}, transform_param=transform),
        f"Images of any size: reshape this blob. BGR 0..255, minus the mean{scaled}; Caffe itself does not\n"
        "apply transform_param here, tools/predict.py does.",
    )
    model.build(network, options)
    if model.protocol.interpolated:
        _upsample(network, model.protocol)
    learned = model.trained_crf is not None
    if crf or learned:
        parameters = dict(model.trained_crf or model.deploy_crf)
        if learned and model.tested_iterations is not None:
            parameters["max_iter"] = model.tested_iterations
        dense_crf(network, options, parameters, learn=learned, train=False, origin=model.crf_origin)
    else:
        network.add("prob", L.Softmax(network.last))
    return comment_lines(model.headline) + f'name: "{name}"\n\n' + network.text(options.new_layers)


def _loss_choices(model: Model, options: Options) -> dict[str, Any]:
    """Choose the fields of `loss_param` beside the ignored label."""
    weights = options.class_weights
    return {
        **model.protocol.loss,
        **({} if weights is None else {"class_weight": list(weights.values)}),
        **({} if options.hard_examples == 1 else {"hard_example_fraction": options.hard_examples}),
    }


def _loss_comment(model: Model, options: Options) -> str:
    weights = options.class_weights
    if weights is None:
        lines = [model.protocol.loss_comment]
    else:
        lines = [
            f"{model.protocol.weighted_loss}. A weight for each class,\nin dataset.json's order: {weights.origin}.\n"
            "The mean is weighted, too. Unlabelled pixels count nowhere."
        ]
    if options.hard_examples != 1:
        lines.append(f"Of a batch's pixels only those with the largest losses count: {100 * options.hard_examples:g}%.")
    return "\n".join(lines)


def _learn_at_the_scores(network: Network, model: Model, data: Data, options: Options) -> None:
    """Add the training's loss, on labels at every so manieth pixel; the scores stay what was added last."""
    scores, step = network.last, model.protocol.label_step
    in_training = {"include": {"phase": caffe.TRAIN}}
    every = {"pool": caffe_pb2.PoolingParameter.MAX, "kernel_size": 1, "stride": step}
    comment = f"Every {step}th label in both directions, where the scores are: a pooling of single pixels chooses them."
    labels = L.Pooling(network.spec.label, pooling_param=every, **in_training)
    network.add("label_shrink", labels, comment)
    loss_param = {"ignore_label": data.ignore_label, **_loss_choices(model, options)}
    # The same top as the test's loss has: NetSpec would name it as the layer.
    place = {"ntop": 0, "name": "loss_shrink", "top": ["loss"]}
    loss = L.SoftmaxWithLoss(scores, labels, loss_param=loss_param, **in_training, **place)
    network.add("loss_shrink", loss, _loss_comment(model, options))
    network.add_on(scores)


def _upsample(network: Network, protocol: Protocol, **more: Any) -> None:
    layer = L.BilinearInterpolation(network.last, network.spec.data, **more)
    network.add("upsample", layer, protocol.upsampling)


def solver_file_text(
    name: str,
    headline: str,
    model: Model,
    data: Data,
    options: Options,
    schedule: Schedule,
    net: str,
    *,
    iter_size: int = 1,
    weights: str | None = None,
    weights_comment: str = WEIGHTS_COMMENT,
) -> str:
    """Write the solver of a model as prototxt.

    Args:
        name: of the training.
        headline: what it trains on what.
        model: of `MODELS`.
        data: gives the number of test images.
        options: of the network.
        schedule: how it learns.
        net: the train_val network's file, from the solver's folder or, for the shipped ones, the repository's root.
        iter_size: passes to an iteration.
        weights: what it starts from, in place of the model's own.
        weights_comment: above it.
    """
    lines = [f"{headline}: {options.crop_text}, batches of {options.batch}."]
    if model.weights is not None and iter_size == 1 and options.batch > 1:
        lines.append(
            "Where memory is short, a smaller batch_size (in the network) with iter_size (here) keeps the images of\n"
            "an iteration."
            + (" Batch normalisation then sees the smaller batch: no longer the paper's setting." * model.batch_norm)
        )
    return sealed(
        solver_text(
            "\n".join(lines),
            net,
            schedule,
            name,
            data.test_images,
            tested_images=data.tested_images,
            weights=weights or model.weights,
            weights_comment=weights_comment,
            iter_size=iter_size,
            batch_norm=model.batch_norm,
        )
    )


def network_texts(model: Model, name: str, data: Data, options: Options) -> Mapping[str, str]:
    """Write the texts of a model's networks by file name, sealed against overwriting edits."""
    files = {
        TRAIN_VAL: train_val_text(model, name, data, options),
        "deploy.prototxt": deploy_text(model, name, data.classes, options),
    }
    if model.trained_crf is None:
        files["deploy_crf.prototxt"] = deploy_text(model, name, data.classes, options, crf=True)
    return {file: sealed(text) for file, text in files.items()}
