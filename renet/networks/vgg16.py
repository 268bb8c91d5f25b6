"""VGG-16's convolutions, poolings and fully connected layers, from which most of the networks start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from caffe import layers as L
from caffe.proto import caffe_pb2

from renet.networks.spec import Network, convolution

FROM_VGG = {"type": "msra"}  # without VGG-16's weights a network can still be trained, from scratch
STAYS = [{"lr_mult": 0, "decay_mult": 0}] * 2
FROZEN_COMMENT = "The layers with lr_mult 0 keep their weights: backpropagation skips conv{last} and what lies before"
HALVES = {"kernel_size": 2, "stride": 2}


@dataclass(frozen=True)
class Stage:
    """Convolutions of 3 x 3, each with a ReLU, and the pooling after them.

    Attributes:
        number: 1 to 5.
        depth: number of convolutions.
        channels: of each.
        dilation: of each, and its padding.
        pooling: fields of `pooling_param`.
        comments: by layer name.
    """

    number: int
    depth: int
    channels: int
    dilation: int = 1
    pooling: Mapping[str, int] = field(default_factory=lambda: HALVES)
    comments: Mapping[str, str] = field(default_factory=dict)

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Name the convolutions, in order."""
        return tuple(f"conv{self.number}_{index}" for index in range(1, self.depth + 1))

    def with_comment(self, name: str, comment: str) -> Stage:
        """Give the layer `name` a comment."""
        return replace(self, comments={**self.comments, name: comment})


STAGES = (Stage(1, 2, 64), Stage(2, 2, 128), Stage(3, 3, 256), Stage(4, 3, 512), Stage(5, 3, 512))


def add_relu(network: Network, name: str) -> None:
    """Add the ReLU of the convolution `name`, in its place."""
    network.add(name.replace("conv", "relu"), L.ReLU(network.last, in_place=True))


def vgg16(
    network: Network,
    stages: Sequence[Stage],
    frozen: int,
    first_pad: int = 1,
    after: Callable[[Network, str], None] = add_relu,
    masks: bool = False,
    frozen_where: str = "",
) -> None:
    """Add conv1_1 to the last stage's pooling: the part with weights of VGG-16.

    Args:
        network: to add to.
        stages: from the image on.
        frozen: stages from the first on whose weights stay as they are.
        first_pad: padding of conv1_1.
        after: adds what follows each convolution.
        masks: each pooling has a second top, `poolN_mask`: where its maxima were.
        frozen_where: a remark on what stays.
    """
    for stage in stages:
        for name in stage.convolutions:
            comment = stage.comments.get(name, "")
            if name == "conv1_1" and frozen:
                comment += f"\n{FROZEN_COMMENT.format(last=frozen)}{frozen_where}."
            convolution(
                network,
                name,
                stage.channels,
                3,
                FROM_VGG,
                comment,
                STAYS if stage.number <= frozen else None,
                pad=[first_pad if name == "conv1_1" else stage.dilation],
                **({"dilation": [stage.dilation]} if stage.dilation > 1 else {}),
            )
            after(network, name)
        name = f"pool{stage.number}"
        max_pooling(network, name, stage.pooling, stage.comments.get(name, ""), masks)


def max_pooling(network: Network, name: str, window: Mapping[str, Any], comment: str = "", mask: bool = False) -> None:
    """Add a max pooling on top of the last layer; with `mask` its second top is `<name>_mask`."""
    parameter = {"pool": caffe_pb2.PoolingParameter.MAX, **window}
    tops = (name, f"{name}_mask") if mask else (name,)
    network.add_several(name, tops, L.Pooling(network.last, ntop=len(tops), pooling_param=parameter), comment)
