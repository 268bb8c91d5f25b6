"""Models that the generator knows: the layers of each, and how it learns by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from renet.networks import deeplab, encoder_decoders, fcn8s, h_renet, multi_scale, n_renet
from renet.networks.dense_crf import PAPER_CRF, RELEASED_CRF, SCENES_CRF
from renet.networks.protocol import Protocol
from renet.networks.schedules import Schedule, adam, adamw, authors_sgd, h_renet_sgd, n_renet_sgd
from renet.networks.spec import Network, Options

SOLVERS = ("sgd", "adam", "adamw")
PAPER = "Combining the Best of Convolutional Layers and Recurrent Layers, arXiv 1603.04871"


@dataclass(frozen=True)
class Model:
    """Model that the generator knows.

    Attributes:
        build: adds its layers to a network, the last of them gives the scores.
        headline: what the written files say first.
        crop: default training crop (height, width).
        batch: default batch.
        sgd: its SGD schedule over so many iterations, None for the usual number.
        adam: its schedule for little time, likewise.
        solver: which of them is the default.
        trained_crf: parameters of a dense CRF that is trained together with the network; None: it is trained alone.
        tested_iterations: of a trained CRF, where a test has others than training; None: the same.
        deploy_crf: parameters of the dense CRF in deploy_crf.prototxt.
        crf_origin: where its parameters are from, where they are not the paper's or its authors' release's.
        input_scale: what the image is multiplied with after its mean was taken off.
        weights: what it starts from; None: from nothing.
        batch_norm: whether it has BatchNorm layers.
        stacked: whether it has several recurrent groups, between which Dropout may stand.
        protocol: on what of the data it learns, and by which loss.
        defaults: of `Options`, where the model has its own.
        iter_size: passes to an iteration.
    """

    build: Callable[[Network, Options], None]
    headline: str
    crop: tuple[int, int]
    batch: int
    sgd: Callable[[int | None], Schedule] = n_renet_sgd
    adam: Callable[[int | None], Schedule] = adam
    solver: str = "sgd"
    trained_crf: Mapping[str, Any] | None = None
    tested_iterations: int | None = None
    deploy_crf: Mapping[str, Any] = field(default_factory=lambda: PAPER_CRF)
    crf_origin: str = ""
    input_scale: float = 1
    weights: str | None = None
    batch_norm: bool = False
    stacked: bool = False
    protocol: Protocol = field(default_factory=Protocol)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    iter_size: int = 1

    def options(self, crop: tuple[int, int] | None = None, batch: int | None = None, **choices: Any) -> Options:
        """Choose the network's options; what is None is the model's own, or `Options`' default. A crop may become
        smaller (see `Protocol.crop`)."""
        given = {name: value for name, value in choices.items() if value is not None}
        whole = self.protocol.whole_images and crop is None and batch in (None, 1)
        crop = self.protocol.crop(crop or self.crop)
        return Options(crop, batch or self.batch, **{**self.defaults, "whole_images": whole, **given})

    def schedule(self, solver: str | None = None, iterations: int | None = None) -> Schedule:
        """Choose the schedule of `SOLVERS` (default: the model's), over so many iterations (default: the usual)."""
        solver = solver or self.solver
        if solver == "adamw":
            return adamw(self.adam(iterations))
        return {"sgd": self.sgd, "adam": self.adam}[solver](iterations)


# ------------------------------------------------------------------------------------------------------- N-ReNet

_FROM_PIXELS = partial(Model, input_scale=n_renet.INPUT_SCALE)
_SMALL = partial(_FROM_PIXELS, crop=(96, 128), batch=10, solver="adam")

N_RENETS = {
    "n_renet": _FROM_PIXELS(
        n_renet.n_renet,
        f"N-ReNet: three recurrent layer groups on raw pixels.\n{PAPER}, sections 3 and 4.1.",
        (240, 320),
        10,
        stacked=True,
    ),
    # Crops smaller than most images shift the patches' grid over them from sample to sample.
    "n_renet_quarter": _FROM_PIXELS(
        n_renet.n_renet_quarter,
        f"N-ReNet with 4x4 patches first, for training on a CPU.\nAfter {PAPER}, sections 3 and 4.1.",
        (208, 288),
        10,
        solver="adam",
        stacked=True,
    ),
    "n_renet_released": _FROM_PIXELS(
        n_renet.n_renet_released,
        "N-ReNet as in the authors' code of 2015, which differs from the paper's text where the comments say so.\n"
        f"{PAPER}.",
        (240, 321),
        20,
        stacked=True,
    ),
    "n_renet_small": _SMALL(
        n_renet.n_renet_small,
        f"N-ReNet with two small groups, for small images on a CPU.\nAfter {PAPER}, section 3.",
        stacked=True,
    ),
    "conv_small": _SMALL(
        n_renet.conv_small,
        "A small fully convolutional network to hold beside n_renet_small: as many parameters, the same resolution,\n"
        "but it sees only the neighbourhood of a position.",
    ),
    "conv_small_crf": _SMALL(
        n_renet.conv_small,
        "conv_small and a dense CRF, trained together, which the paper leaves as future work (section 4.2).\n"
        "It may start from conv_small's weights (tools/train.py --weights), whose layers have the same names.",
        trained_crf=SCENES_CRF,
    ),
}

# ------------------------------------------------------------------------------------------------ FCN and H-ReNet

VGG16_WEIGHTS = "models/vgg16.caffemodel"
# Section 4.2: iterations without a recurrent group, with one, and with multi-layer feature combination.
BASELINE_ITERATIONS, PLAIN_ITERATIONS, MLFB_ITERATIONS = 12_000, 30_000, 40_000
# The network of Tables 6 and 7. With COCO it learns from both datasets first, the rate divided by 10 every step, and
# then from VOC 2012 alone.
BEST = "h_renet_bn_mlfb"
COCO_ITERATIONS, COCO_STEP, AFTER_COCO_ITERATIONS = 120_000, 50_000, 30_000
# Adam moves every weight by about its rate: what VGG-16 learnt must not be lost.
FINE_TUNING_RATE = 1e-4


def _fine_tuned(build: Callable[[Network, Options], None], headline: str, iterations: int, **more: Any) -> Model:
    """A model that starts from VGG-16."""
    return Model(
        build,
        f"{headline}\n{PAPER}, section 4.2.",
        (400, 500),
        10,
        sgd=lambda wanted: h_renet_sgd(wanted or iterations),
        adam=lambda wanted: adam(wanted, FINE_TUNING_RATE),
        weights=VGG16_WEIGHTS,
        **more,
    )


_HEADLINES = {
    "h_renet": "H-ReNet (Table 3, Table 4 b): one recurrent layer group between conv7 and conv8 of the baseline FCN.",
    "h_renet_bn": "H-ReNet with batch normalisation (Table 4 c, Table 5 conv7) of what its recurrent group sees.",
    "h_renet_bn_mlfb": "H-ReNet with batch normalisation and multi-layer feature combination (Table 4 d, Figure 3).",
    "h_renet_l2_mlfb": "H-ReNet with multi-layer feature combination and L2 normalisation (section 4.2).",
    "h_renet_bn_irnn": "H-ReNet with batch normalisation and IRNN units of as many parameters in the LSTM's place.",
    "h_renet_bn_gru": "H-ReNet with batch normalisation and GRU units of as many parameters in the LSTM's place.",
    "h_renet_bn_from_pool4": "H-ReNet whose recurrent group sees pool4; without conv5 to conv7 (Table 5).",
    "h_renet_bn_from_pool5": "H-ReNet whose recurrent group sees pool5; without conv6 and conv7 (Table 5).",
    "h_renet_bn_conv7_pool5": "H-ReNet whose recurrent group sees conv7 and pool5 (Table 5).",
    "h_renet_released": "H-ReNet as in the authors' release: d = 160, conv7 of 1x1, ReLU after the normalisation.",
}

H_RENETS = {
    "fcn": _fine_tuned(h_renet.fcn, "The baseline FCN of Table 2.", BASELINE_ITERATIONS),
    "fcn_rf604": _fine_tuned(
        h_renet.fcn_rf604,
        "The baseline FCN with the receptive field of 604 pixels that section 4.2 states.",
        BASELINE_ITERATIONS,
    ),
    "fcn_deeper": _fine_tuned(
        h_renet.fcn_deeper,
        "The baseline FCN with a convolution of as many parameters in the place of H-ReNet's recurrent group.",
        PLAIN_ITERATIONS,
    ),
    "fcn_deeper_bn": _fine_tuned(
        partial(h_renet.fcn_deeper, normalised=True),
        "The baseline FCN with batch normalisation, and a convolution of as many parameters in the place of H-ReNet's\n"
        "recurrent group.",
        PLAIN_ITERATIONS,
        batch_norm=True,
    ),
    **{
        name: _fine_tuned(
            variant,
            _HEADLINES[name],
            MLFB_ITERATIONS if len(variant.inputs) > 1 else PLAIN_ITERATIONS,
            batch_norm=variant.normalisation.startswith(h_renet.BN),
        )
        for name, variant in h_renet.VARIANTS.items()
    },
}
H_RENETS["h_renet_released"] = replace(H_RENETS["h_renet_released"], deploy_crf=RELEASED_CRF, defaults={"new_rate": 10})

# ------------------------------------------------------------------------------------------- comparison systems

FCN_ITERATIONS = 100_000
DEEPLAB_ITERATIONS, DEEPLAB_STEP = 6_000, 2_000
MULTI_SCALE_ITERATIONS = 36_000
ENCODER_DECODER_ITERATIONS = 40_000
CRF_AS_RNN_ITERATIONS = 80_000
# The rates of FCN's losses, which are sums over an image's pixels: each variant starts from the one before.
FCN_RATES = {"fcn32s": 1e-10, "fcn16s": 1e-12, "fcn8s": 1e-14}

H_RENETS_CRF = "H-ReNet's (Table 6)"


def _comparison(
    build: Callable[[Network, Options], None],
    headline: str,
    crop: tuple[int, int],
    batch: int,
    **more: Any,
) -> Model:
    """A system that the paper compares with: all its layers learn."""
    return Model(build, headline, crop, batch, **{"defaults": {"frozen": 0}, **more})


def _fcn(name: str, number: str, start: str) -> Model:
    def schedule(wanted: int | None) -> Schedule:
        comment = (
            f"The authors' solver: {FCN_RATES[name]:g}, which stays, and a large momentum, for a loss that is a sum\n"
            f"over all pixels. It starts from {start}."
        )
        return authors_sgd(wanted or FCN_ITERATIONS, FCN_RATES[name], comment, momentum=0.99)

    return _comparison(
        fcn8s.Fcn(int(number)),
        f"FCN-{number}s.\n{fcn8s.PAPER}.",
        (500, 500),
        1,
        sgd=schedule,
        adam=lambda wanted: adam(wanted, FINE_TUNING_RATE),
        weights=VGG16_WEIGHTS,
        protocol=fcn8s.PROTOCOL,
        crf_origin=H_RENETS_CRF,
    )


def _crf_as_rnn_sgd(wanted: int | None) -> Schedule:
    comment = "Section 6: 1e-13, which stays, and a large momentum. It starts from FCN-8s."
    return authors_sgd(wanted or CRF_AS_RNN_ITERATIONS, 1e-13, comment, momentum=0.99)


def _deeplab_sgd(wanted: int | None) -> Schedule:
    iterations = wanted or DEEPLAB_ITERATIONS
    comment = "Section 4.1: 0.001 (the classifier ten times that), divided by 10 after each third of the iterations."
    step = max(1, iterations * DEEPLAB_STEP // DEEPLAB_ITERATIONS)
    return authors_sgd(iterations, 0.001, comment, step=step)


def _multi_scale_sgd(wanted: int | None) -> Schedule:
    iterations = wanted or MULTI_SCALE_ITERATIONS
    comment = (
        "The article prints no whole solver: iterations and steps are N-ReNet's, to stand beside it, and the rate is\n"
        "one with which this network learns."
    )
    return authors_sgd(iterations, 0.01, comment, step=max(1, iterations // 3))


def _segnet_sgd(wanted: int | None) -> Schedule:
    comment = "The authors' solver: 0.001, which stays (0.1 in their text)."
    return authors_sgd(wanted or ENCODER_DECODER_ITERATIONS, 0.001, comment)


def _deconvnet_sgd(wanted: int | None) -> Schedule:
    iterations = wanted or ENCODER_DECODER_ITERATIONS
    comment = "The authors' solver of their second stage: 0.01, divided by 10 after each quarter of the iterations."
    return authors_sgd(iterations, 0.01, comment, step=max(1, iterations // 4))


COMPARISONS = {
    "deeplab_largefov": _comparison(
        deeplab.deeplab_largefov,
        f"DeepLab-LargeFOV; with its CRF in deploy_crf.prototxt (Table 6).\n{deeplab.PAPER}.",
        (321, 321),
        30,
        sgd=_deeplab_sgd,
        adam=lambda wanted: adam(wanted, FINE_TUNING_RATE),
        deploy_crf=deeplab.CRF,
        crf_origin="DeepLab's authors'",
        weights=VGG16_WEIGHTS,
        protocol=deeplab.PROTOCOL,
    ),
    "fcn32s": _fcn("fcn32s", "32", "VGG-16"),
    "fcn16s": _fcn("fcn16s", "16", "FCN-32s"),
    "fcn8s": _fcn("fcn8s", "8", "FCN-16s"),
    "crf_as_rnn": _comparison(
        fcn8s.Fcn(8, learned=True),
        f"CRF-as-RNN (Table 6): FCN-8s and a dense CRF, trained together.\n{fcn8s.CRF_AS_RNN_PAPER}.",
        (500, 500),
        1,
        sgd=_crf_as_rnn_sgd,
        adam=lambda wanted: adam(wanted, FINE_TUNING_RATE / 10_000),  # the matrices learn at 10,000 times the rate
        weights=VGG16_WEIGHTS,
        protocol=fcn8s.PROTOCOL,
        trained_crf=fcn8s.TRAINED_CRF,
        tested_iterations=fcn8s.TESTED_ITERATIONS,
        crf_origin="CRF-as-RNN's",
    ),
    "segnet": _comparison(
        encoder_decoders.segnet,
        f"SegNet.\n{encoder_decoders.SEGNET_PAPER}.",
        (360, 480),
        4,
        sgd=_segnet_sgd,
        adam=lambda wanted: adam(wanted, FINE_TUNING_RATE),
        weights=VGG16_WEIGHTS,
        batch_norm=True,
        protocol=encoder_decoders.SEGNET_PROTOCOL,
        defaults={"frozen": 0, "mean": (0, 0, 0)},
        crf_origin=H_RENETS_CRF,
    ),
    "deconvnet": _comparison(
        encoder_decoders.deconvnet,
        f"DeconvNet, over crops of images; the authors' proposals of objects are not part of it.\n"
        f"{encoder_decoders.DECONVNET_PAPER}.",
        (224, 224),
        8,
        sgd=_deconvnet_sgd,
        adam=lambda wanted: adam(wanted, FINE_TUNING_RATE),
        weights=VGG16_WEIGHTS,
        batch_norm=True,
        protocol=encoder_decoders.DECONVNET_PROTOCOL,
        iter_size=8,
        crf_origin=H_RENETS_CRF,
    ),
    "multi_scale_convnet": _comparison(
        multi_scale.multi_scale_convnet,
        f"Multi-scale ConvNet (Table 1): one small network on three scales of the image.\n{multi_scale.PAPER}.",
        (240, 320),
        10,
        sgd=_multi_scale_sgd,
        crf_origin=H_RENETS_CRF,
        protocol=Protocol.of_others(),
    ),
}

MODELS: dict[str, Model] = {**N_RENETS, **H_RENETS, **COMPARISONS}
