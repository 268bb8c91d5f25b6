"""The networks that the paper's authors released, brought to the layers and names of ours.

Of two years: N-ReNet in 2015, and H-ReNet with its dense CRF in 2016. Their ReNet LSTM layer has 22 blobs, 11 a scan,
the forward scan (down, right) first, as here, and an input matrix's columns are in ours' order: channel, row, column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from renet.common.errors import UserError
from renet.common.text_layout import shape_text
from renet.exchange.foreign_network import ForeignLayer, ForeignNetwork
from renet.exchange.prototxt_tree import Node, Word

BLOBS_OF_A_SCAN = 11
MEAN_OF_2016 = (104.0, 117.0, 123.0)  # B, G, R, as in their notebook
# Of 2016: layers, and blobs of other names than their layers
_NAMES = {
    "fc6_new": "conv6",
    "fc7_new": "conv7",
    "pool4_batch_norm": "pool4_bn",
    "pool5_batch_norm": "pool5_bn",
    "fc7_new_batch_norm": "conv7_bn",
    "pool4_pool5_fc7_batch_norm": "features",
    "renet_lstm_6_vertical": "renet1_vertical",
    "renet_lstm_6_horizontal": "renet1_horizontal",
    "conv6": "conv8",
    "bilinear_interpolation": "upsample",
}
# Of 2015, with patterns: conv3 is the classifier there
_PATTERNS = ((r"renet_lstm_(\d+)_(\w+)", r"renet\1_\2"), (r"conv(\d+)", r"transition\1"))
_UPSAMPLED = r"conv\d+_full_res"

_CRF = {
    "num_iterations": "max_iter",
    "spatial_filter_weight": "pos_w",
    "theta_gamma": "pos_xy_std",
    "bilateral_filter_weight": "bi_w",
    "theta_alpha": "bi_xy_std",
    "theta_beta": "bi_rgb_std",
}
_SINGLE = ("pos_w", "pos_xy_std", "bi_w", "bi_xy_std", "bi_rgb_std")


def translate_release(network: ForeignNetwork) -> None:
    """Translate the layers of the authors' release with their weights in place, and in a network with their ReNet LSTM
    all names.

    Raises:
        UserError: a layer has a setting, or weights, that ours lacks; names it.
    """
    is_theirs = any(layer.node.has("renet_lstm_param") for layer in network.layers)
    for layer in list(network.layers):
        if layer.node.has("renet_lstm_param"):
            _translate_lstm(layer)
        elif layer.kind == "densecrfmeanfield":
            _translate_crf(network, layer)
        elif layer.kind == "densecrf":
            _take_single_values(network, layer)
        elif layer.node.has("bilinear_interpolation_param"):
            layer.node.drop("bilinear_interpolation_param")
            layer.node.put("bottom", layer.bottoms[0], next(iter(network.inputs), "data"))
        elif layer.kind == "normalize":
            _translate_normalize(layer)
    if is_theirs:
        _leave_out_unknown(network)
        _rename(network)
        network.notes.append(
            "the authors' ReNet LSTM layers became ReNetLSTM, and all layers have this repository's names"
        )


def lstm_blobs(theirs: Sequence[np.ndarray], has_peepholes: bool, layer: str) -> list[np.ndarray]:
    """Turn the 22 blobs of one of their ReNet LSTM layers into ours: W_x, b, W_h, and p, of both scans.

    Args:
        theirs: of each scan [W_x, W_h] of i, g, o, f (d x (P + d)), peepholes of i, o, f (d x d), biases of i, g, o, f.
        has_peepholes: whether the layer uses its peepholes.
        layer: its name.

    Raises:
        UserError: there are not 22, or the peepholes are full matrices.
    """
    if len(theirs) != 2 * BLOBS_OF_A_SCAN:
        raise UserError(
            f"the layer {layer!r} has {len(theirs)} blobs; the authors' ReNet LSTM has {2 * BLOBS_OF_A_SCAN}"
        )
    ours = []
    for start in (0, BLOBS_OF_A_SCAN):
        i, g, o, f, p_i, p_o, p_f, b_i, b_g, b_o, b_f = theirs[start : start + BLOBS_OF_A_SCAN]
        units = b_i.size
        if i.shape[-2] != units or i.shape[-1] <= units:
            raise UserError(f"the layer {layer!r} has {shape_text(i.shape)}, which is no [W_x, W_h] of {units} units")
        weights = np.concatenate([each.reshape(units, -1) for each in (i, f, o, g)])
        inputs = weights.shape[1] - units
        ours += [
            weights[:, :inputs],
            np.concatenate([each.ravel() for each in (b_i, b_f, b_o, b_g)]),
            weights[:, inputs:],
        ]
        if has_peepholes:
            matrices = [each.reshape(units, units) for each in (p_i, p_f, p_o)]
            if any(np.any(each - np.diag(np.diagonal(each))) for each in matrices):
                raise UserError(
                    f"the layer {layer!r} has full peephole matrices, {units} x {units}; ReNetLSTM has diagonal ones"
                )
            ours.append(np.stack([np.diagonal(each) for each in matrices]))
    return ours


def crf_weights(theirs: Sequence[np.ndarray], layer: str) -> tuple[float, float]:
    """Read the kernels' weights (positional, bilateral) of one of their CRF layers.

    Raises:
        UserError: it has learnt how labels go together, which `DenseCRF` of fixed weights has not.
    """
    spatial, bilateral, compatibility = theirs
    labels = int(compatibility.size**0.5)
    if not np.array_equal(compatibility.reshape(labels, labels), -np.eye(labels, dtype=np.float32)):
        raise UserError(f"the layer {layer!r} has learnt a compatibility of labels; DenseCRF takes Potts' alone here")
    return float(spatial.ravel()[0]), float(bilateral.ravel()[0])


def _translate_lstm(layer: ForeignLayer) -> None:
    theirs = layer.node.node("renet_lstm_param")
    direction = "VERTICAL" if theirs.value("direction", "X_DIR") == "Y_DIR" else "HORIZONTAL"
    ours = Node([("num_output", Word(theirs.value("num_output"))), ("direction", Word(direction))])
    ours.fields += [(name, Word(theirs.value(name, "1"))) for name in ("patch_height", "patch_width")]
    ours.fields += [
        (name, filler) for name in ("weight_filler", "bias_filler") for filler in theirs.nodes(f"general_{name}")
    ]
    forget = theirs.node("forget_gate_bias_filler").value("value")
    ours.fields += [("forget_bias", Word(forget))] if forget else []
    if theirs.value("peephole", "true") == "true":
        ours.fields.append(("peephole", Word("true")))
    layer.node.put("renet_lstm_param", ours)
    if layer.blobs:
        layer.blobs = lstm_blobs(layer.blobs, ours.has("peephole"), layer.origin)
    layer.node.fields = [
        ("renet_param" if key == "renet_lstm_param" else key, value)
        for key, value in layer.node.fields
        if key != "param"  # rates of 22 blobs
    ]


def _translate_crf(network: ForeignNetwork, layer: ForeignLayer) -> None:
    """(scores, what the first softmax is of, image) to DenseCRF, whose first softmax is always of the scores."""
    theirs = layer.node.node("dense_crf_meanfield_param")
    ours = Node([(_CRF[name], value) for name, value in theirs.fields if name in _CRF])
    # Theirs divides by K 1 after the kernel, and its colours are the network's input as it is, mean taken off
    ours.fields += [("normalization", Word("AFTER")), ("order", Word("RGB"))]
    if layer.blobs:
        for name, weight in zip(("pos_w", "bi_w"), crf_weights(layer.blobs, layer.origin), strict=True):
            ours.put(name, Word(f"{weight:g}"))
        layer.blobs = []
    scores, start, image = layer.bottoms
    split = network.producer(start)
    same = split is not None and split.kind == "split" and {scores, start} <= set(split.tops)
    if not same and scores != start:
        raise UserError(f'{network.file}: the layer "{layer.name}" starts from other scores than its own, "{start}"')
    if same:
        network.layers = [other for other in network.layers if other is not split]
        scores = split.bottoms[0]
    layer.node.put("type", "DenseCRF")
    layer.node.put("bottom", scores, image)
    layer.node.drop("dense_crf_meanfield_param", "param")
    layer.node.fields.append(("dense_crf_param", ours))
    softmax = [other for other in network.layers if other.kind == "softmax" and other.bottoms == layer.tops]
    for other in softmax:
        layer.node.put("top", *other.tops)
        network.layers = [each for each in network.layers if each is not other]
    network.notes.append(
        f'"{layer.name}": DenseCRFMeanfield became DenseCRF with normalization AFTER'
        + (", which has its softmax, too" if softmax else "")
    )


def _take_single_values(network: ForeignNetwork, layer: ForeignLayer) -> None:
    """DenseCRF of DeepLab's kind: a list of kernels, of which ours has one each."""
    parameter = layer.node.node("dense_crf_param")
    for name in _SINGLE:
        values = parameter.values(name)
        if len(values) > 1:
            raise UserError(
                f'{network.file}: the layer "{layer.name}" has {len(values)} kernels ({name}: {", ".join(values)}); '
                "DenseCRF has one positional and one bilateral kernel"
            )


def _translate_normalize(layer: ForeignLayer) -> None:
    for name, value in layer.node.fields:
        if isinstance(value, Node) and value.has("uniform_scaling"):
            layer.node.put("type", "L2Normalization")
            scale = Node([("scale", Word(value.value("uniform_scaling")))])
            layer.node.drop(name)
            layer.node.fields.append(("l2_normalization_param", scale))
            return


def _leave_out_unknown(network: ForeignNetwork) -> None:
    """Take the row of the label 0 out of the classifier where that is the unknown one, which the loss ignores."""
    last = next(layer for layer in reversed(network.layers) if layer.kind == "convolution")
    if network.ignored != 0:
        return
    parameter = last.node.node("convolution_param")
    parameter.put("num_output", Word(str(int(parameter.value("num_output")) - 1)))
    last.blobs = [blob[1:] if blob.shape[0] > 1 else blob[..., 1:] for blob in last.blobs]
    network.notes.append(f'"{last.origin}": without the row of the label 0, unknown, which was never learnt')


def _rename(network: ForeignNetwork) -> None:
    """Give layers and blobs the names of h_renet_released or n_renet_released."""
    is_of_2016 = any(layer.origin == "fc7_new" for layer in network.layers)
    convolutions = [layer.origin for layer in network.layers if layer.kind == "convolution"]

    def ours(name: str) -> str:
        if re.fullmatch(_UPSAMPLED, name):
            return "upsample"
        if is_of_2016 or name in _NAMES:
            return _NAMES.get(name, name)
        if name == convolutions[-1]:
            return "score"
        return next((re.sub(old, new, name) for old, new in _PATTERNS if re.fullmatch(old, name)), name)

    for layer in network.layers:
        for key in ("bottom", "top"):
            layer.node.put(key, *(ours(value) for value in layer.node.values(key)))
        name = ours(layer.origin)
        if layer.kind == "relu":
            name = f"{layer.tops[0]}_relu" if layer.tops[0].endswith("_bn") else layer.origin.lower()
        elif layer.kind == "tanh":
            name = f"{layer.tops[0]}_tanh"
        layer.node.put("name", name)
    if network.scores is not None:
        network.scores = ours(network.scores)
