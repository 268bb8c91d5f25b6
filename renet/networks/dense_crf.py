"""Dense CRF at the end of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caffe import layers as L
from caffe.proto import caffe_pb2

from renet.networks.spec import Network, Options

# The positional kernel's and the bilateral kernel's weights and spreads in the authors' release; it iterates 5 times,
# but the paper's Table 6 has 2.
PAPER_CRF = {"max_iter": 2, "pos_w": 3, "pos_xy_std": 3, "bi_w": 5, "bi_xy_std": 80, "bi_rgb_std": 3}
# The release also normalises on the output's side alone, and takes the image's channels as the network reads them.
RELEASED_CRF = {**PAPER_CRF, "max_iter": 5, "normalization": "AFTER", "order": "RGB", "mean_value": []}
# For small drawn images with noise: colours within one thing differ by more than 3, and things are nearer.
SCENES_CRF = {"max_iter": 2, "pos_w": 1, "pos_xy_std": 3, "bi_w": 3, "bi_xy_std": 30, "bi_rgb_std": 12}
_ITERATIONS_OF = {True: " in training, where a test of the authors' has 10", False: ", in training 5"}


def dense_crf(
    network: Network, options: Options, parameters: Mapping[str, Any], learn: bool, train: bool, origin: str = ""
) -> None:
    """Add a dense CRF over the scores of the last layer, at the end of a network.

    Args:
        network: to add to; the image is its `data`.
        options: say what was taken off the image.
        parameters: of `dense_crf_param`; an empty mean_value is none, not the image's.
        learn: the kernels' weights and the labels' compatibility are parameter blobs; matrices, where the parameters
            say so.
        origin: where the parameters are from, where they are not the paper's or its authors' release's.
        train: the top is `crf`, log probabilities for the loss; else `prob`, probabilities.
    """
    output = caffe_pb2.DenseCRFParameter.LOG_PROBABILITY if train else caffe_pb2.DenseCRFParameter.PROBABILITY
    settings = {"mean_value": list(options.mean), "scale": network.input_scale, **parameters, "output": output}
    where = "" if origin else " (section 4.2)"
    text = f"Fully connected CRF over the scores{where}, mean field over the permutohedral lattice. "
    if settings["mean_value"]:
        text += "mean_value and\nscale say how the layer gets the image's own colours back from `data`."
    else:
        del settings["mean_value"]
        text += (
            "The lattice\n"
            "is the authors' release's: over (x, y) and the channels of `data` as they are, so without mean_value and\n"
            "with order: RGB, which keeps their order. It also normalises as the release does."
        )
    iterations = "Table 4 (e) to (g) and Table 6: two iterations"
    if parameters["max_iter"] != PAPER_CRF["max_iter"]:
        iterations = f"{parameters['max_iter']} iterations, where the paper's Table 6 has {PAPER_CRF['max_iter']}"
    matrices = "kernel_weights" in parameters
    if matrices:
        text += (
            f"\n{parameters['max_iter']} iterations{_ITERATIONS_OF[train]}. The weights of the two kernels and the\n"
            "labels' compatibility are C x C matrices, which start at pos_w, bi_w and Potts on their diagonals; the\n"
            "spreads stay. Their rates, as in the authors' prototxt, make up for the solver's small one."
        )
    elif learn:
        text += (
            "\nlearn: the weights of the two kernels (one for each label) and the C x C compatibility of the labels\n"
            "are parameters, which start at pos_w, bi_w and Potts; the spreads stay. They are few, so decay would\n"
            "only pull them to 0; the weights may move ten times as fast, as they start at units, not at tenths."
        )
    elif origin:
        text += (
            f"\n{parameters['max_iter']} iterations and the kernels are {origin}. Nothing of it is learned: the\n"
            "network's weights serve as they are, and tools/crf.py searches better settings."
        )
    else:
        text += (
            f"\n{iterations}; the kernels are those of the authors' release. Nothing\n"
            "of it is learned: the network's weights serve as they are, and tools/crf.py searches better settings."
        )
    if train:
        text += (
            "\nThe loss takes the softmax of the top, and that of log probabilities is the probabilities: exact.\n"
            "Backward keeps Q of every iteration: max_iter x C x H x W numbers, of one image at a time."
        )
    fast, slow = (10_000, 1_000) if matrices else (10, 1)
    rates = [{"lr_mult": rate, "decay_mult": 0} for rate in (fast, fast, slow)]
    layer = L.DenseCRF(
        network.last,
        network.spec.data,
        **({"param": rates} if learn else {}),
        dense_crf_param={**settings, **({"learn": True} if learn and not matrices else {})},
    )
    top = "crf" if train else "prob"
    # What is learned is found again by the layer's name.
    network.add_several("crf" if learn else top, [top], layer, text)
