"""What is measured on a GPU: groups, networks and CRFs, their shapes and the sides they are beside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from renet.gpu_check.work import FLOAT32, FORWARD, FORWARD_BACKWARD, PRECISIONS, STEP, TF32

CHAIN = 4  # passes between two events, so that the processor's way to the GPU is paid once
N_RENET = "prototxt/n_renet/stanford_background"
N_RENET_STEPS = 3 * (120 + 160)  # three groups over the 120 x 160 patches of an image of 240 x 320
VOC_SIZE = "375,500"
VOC_CLASSES = 21
PAPER_SECONDS = {"fcn": 0.21, "h_renet_bn_mlfb": 0.24}  # an image on the paper's GPU (section 4.2)


class Entry(NamedTuple):
    """Something to time.

    Attributes:
        name: what the table calls it.
        passes: FORWARD, FORWARD_BACKWARD or STEP.
        steps: of its scans, or iterations of its CRF, that depend on each other, in one forward pass; 0 where other
            work takes most of the time.
        shape: N, C, H, W and d of a ReNet group; or None.
        options: of benchmark_net, for what no text stands for; files by their paths in the bundle.
        images: that one pass takes.
        text: of the network, for anything but a group, where no file has it.
        aim: milliseconds an image that a forward pass should stay below; or None.
        peer: whether the same in PyTorch is timed beside it.
        precisions: at which it is timed.
        chain: passes between two events.
    """

    name: str
    passes: str
    steps: int
    shape: Sequence[int] | None = None
    options: Sequence[str] = ()
    images: int = 1
    text: str | None = None
    aim: float | None = None
    peer: bool = False
    precisions: Sequence[str] = PRECISIONS
    chain: int = CHAIN


def crf_text(iterations: int) -> str:
    """The network of a CRF over 21 classes on an image of 375 x 500.

    The image's colours change smoothly and have some noise: its lattice has about 150 000 vertices, as photographs
    have (110 000 to 200 000). Noise alone would have seven times as many.
    """
    return f"""name: "crf"
layer {{ name: "inputs" type: "Input" top: "scores" top: "colours" top: "noise"
  input_param {{ shape {{ dim: 1 dim: 21 dim: 375 dim: 500 }} shape {{ dim: 1 dim: 3 dim: 12 dim: 16 }}
    shape {{ dim: 1 dim: 3 dim: 375 dim: 500 }} }} }}
layer {{ name: "surface" type: "BilinearInterpolation" top: "surface" bottom: "colours" bottom: "noise" }}
layer {{ name: "image" type: "Eltwise" top: "image" bottom: "surface" bottom: "noise"
  eltwise_param {{ operation: SUM coeff: 25 coeff: 2 }} }}
layer {{ name: "crf" type: "DenseCRF" top: "crf" bottom: "scores" bottom: "image"
  dense_crf_param {{ max_iter: {iterations} pos_w: 3 pos_xy_std: 3 bi_w: 5 bi_xy_std: 80 bi_rgb_std: 3 }} }}
"""


def segmentation_name(model: str, images: int) -> str:
    """What the table calls FCN or an H-ReNet at a batch."""
    return f"{model} {VOC_SIZE.replace(',', 'x')}, batch {images}"


def segmentation(model: str, images: int, passes: str) -> Entry:
    """FCN or an H-ReNet, as it is used or as it is trained. Its convolutions know no BF16."""
    inputs, file = f"data:{images},3,{VOC_SIZE}", "deploy"
    if passes != FORWARD:
        inputs, file = f"{inputs} label:{images},1,{VOC_SIZE}:{VOC_CLASSES}", "train_val"
    return Entry(
        segmentation_name(model, images),
        passes,
        0,
        options=("-model", f"prototxt/{model}/voc2012/{file}.prototxt", "-inputs", inputs),
        images=images,
        peer=True,
        precisions=(FLOAT32, TF32),
        chain=1,
    )


SHAPES = (
    (10, 12, 120, 160, 40),  # N-ReNet's first group in training: three channels in patches of 2x2
    (10, 240, 50, 63, 120),
    (1, 1024, 47, 63, 120),  # H-ReNet's group on an image of 375x500
)

ENTRIES = (
    *(
        Entry(f"group {','.join(map(str, shape))}", passes, shape[2] + shape[3], shape, images=shape[0], peer=True)
        for shape in SHAPES
        for passes in (FORWARD, FORWARD_BACKWARD)
    ),
    *(
        Entry(
            f"N-ReNet 240x320, batch {images}",
            FORWARD,
            N_RENET_STEPS,
            options=("-model", f"{N_RENET}/deploy.prototxt", "-inputs", f"data:{images},3,240,320"),
            images=images,
            aim=1,
            peer=True,
        )
        for images in (1, 10)
    ),
    Entry(
        "N-ReNet 240x320, batch 10",
        STEP,
        N_RENET_STEPS,
        options=(
            *("-solver", "solvers/n_renet_stanford_background.prototxt"),
            *("-model", f"{N_RENET}/train_val.prototxt"),
            *("-inputs", "data:10,3,240,320 label:10,1,240,320:8"),
        ),
        images=10,
    ),
    Entry("CRF 375x500, 21 classes, 2 iterations", FORWARD, 2, text=crf_text(2), aim=2),
    Entry("CRF 375x500, 21 classes, 10 iterations", FORWARD, 10, text=crf_text(10)),
    *(
        segmentation(model, images, passes)
        for images in (1, 10)
        for model in ("fcn", "h_renet", "h_renet_bn_mlfb")
        for passes in (FORWARD, FORWARD_BACKWARD)
    ),
)


def group_text(shape: Sequence[int]) -> str:
    """The network of a ReNet group: a vertical and then a horizontal layer of LSTM units, with random parameters."""
    n, c, height, width, d = shape
    text = f"""name: "group" force_backward: true
layer {{ name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: {n} dim: {c} dim: {height} dim: {width} }} }} }}
"""
    for name, bottom, inputs in (("vertical", "data", c), ("horizontal", "vertical", 2 * d)):
        scale = max(inputs, d) ** -0.5  # keeps the gates away from their ends
        text += f"""layer {{ name: "{name}" type: "ReNetLSTM" bottom: "{bottom}" top: "{name}"
  renet_param {{ num_output: {d} direction: {name.upper()}
    weight_filler {{ type: "uniform" min: {-scale:.6f} max: {scale:.6f} }}
    bias_filler {{ type: "uniform" min: -0.5 max: 0.5 }} }} }}
"""
    return text


def with_precision(text: str, precision: str) -> str:
    """A network's text with the precision of all its ReNet layers' products set."""
    return text if precision == FLOAT32 else re.sub(r"renet_param\s*\{", rf"\g<0> precision: {precision}", text)
