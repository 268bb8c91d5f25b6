"""The parameters of the dense CRF: from a prototxt, from options, into a prototxt; wrong ones are told before Caffe."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.common.float32 import in_float32
from renet.common.text_files import read_text

LAYER = "DenseCRF"
KIND = {"max_iter": "an iteration count"} | dict.fromkeys(("pos_w", "bi_w"), "a kernel's weight")
NORMALIZATION = "normalization"
NORMALIZATIONS = ("SYMMETRIC", "AFTER", "BEFORE", "NONE")
LEARNED = ("learn", "kernel_weights", "compatibility")  # settings that make parameter blobs


@dataclass(frozen=True)
class CrfParameters:
    """The two Gaussian kernels and the number of mean-field iterations, named as in `dense_crf_param`.

    The defaults are those of the paper's release with the two iterations of its Table 6, and pydensecrf's
    normalisation; the release has AFTER.

    Attributes:
        max_iter: mean-field iterations; 0 leaves the softmax of the scores.
        pos_w: weight of the positional kernel.
        pos_xy_std: its standard deviation in pixels.
        bi_w: weight of the bilateral kernel.
        bi_xy_std: its standard deviation in pixels.
        bi_rgb_std: its standard deviation in colour, of 0..255.
        normalization: of both kernels K, one of `NORMALIZATIONS`; with D = diag(K 1), in their order: D^-1/2 K D^-1/2,
            D^-1 K, K D^-1, K.
    """

    max_iter: int = 2
    pos_w: float = 3.0
    pos_xy_std: float = 3.0
    bi_w: float = 5.0
    bi_xy_std: float = 80.0
    bi_rgb_std: float = 3.0
    normalization: str = NORMALIZATIONS[0]

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: a weight below 0, a deviation that is not above 0, a negative iteration count, an unknown
                normalisation.
        """
        if self.normalization not in NORMALIZATIONS:
            raise UserError(f"normalization is one of {', '.join(NORMALIZATIONS)}, not {self.normalization}")
        for name, value in self.numbers().items():
            if name == "max_iter":
                good, expected = 0 <= value < 2**32, "0 or more"
            elif name in KIND:
                good, expected = in_float32(value) and value >= 0, "0 or more"
            else:
                good, expected = in_float32(value) and value > 0, "above 0"
            if not good:
                kind = KIND.get(name, "a standard deviation")
                raise UserError(f"{name} is {kind} and must be {expected}, not {value:g}")

    def numbers(self) -> dict[str, float]:
        """All but the normalisation, by name."""
        return {name: value for name, value in asdict(self).items() if name != NORMALIZATION}

    def as_prototxt(self, comment: str = "") -> str:
        """`dense_crf_param { ... }`, to be pasted into a DenseCRF layer; `comment` goes before it, line by line."""
        lines = [f"# {line}".rstrip() for line in comment.splitlines()]
        values = [f"  {name}: {value:g}" for name, value in self.numbers().items()]
        values.append(f"  {NORMALIZATION}: {self.normalization}")
        return "\n".join([*lines, "dense_crf_param {", *values, "}", ""])

    def __str__(self) -> str:
        normalised = "" if self.normalization == NORMALIZATIONS[0] else f", normalised {self.normalization.lower()}"
        return (
            f"{self.max_iter} iterations, positional {self.pos_w:g} / {self.pos_xy_std:g}, "
            f"bilateral {self.bi_w:g} / {self.bi_xy_std:g} / {self.bi_rgb_std:g}{normalised}"
        )


def read_crf_parameters(file: Path) -> CrfParameters:
    """The parameters in a prototxt: `dense_crf_param { ... }` alone, or a network with one DenseCRF layer.

    What is not set has the layer's own default. The image's mean, scale and channel order are not read: the caller
    has the image itself.

    Raises:
        UserError: missing, not readable as either, no or several DenseCRF layers, learned parameters, a value out of
            range; names the file.
    """
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    text = read_text(file)
    try:
        layers = [text_format.Parse(text, caffe_pb2.LayerParameter())]
    except text_format.ParseError as of_snippet:
        try:
            layers = [layer for layer in text_format.Parse(text, caffe_pb2.NetParameter()).layer if layer.type == LAYER]
        except text_format.ParseError as of_network:
            error = of_snippet if "dense_crf_param" in text.split("{")[0] else of_network
            raise UserError(f"{file}: neither dense_crf_param {{ ... }} nor a network: {error}") from None
    with_parameters = [layer.dense_crf_param for layer in layers if layer.HasField("dense_crf_param")]
    if len(with_parameters) != 1:
        raise UserError(f"{file}: has {len(with_parameters) or 'no'} dense_crf_param, expected one")
    found = with_parameters[0]
    learned = [name for name in LEARNED if getattr(found, name)]
    if learned:
        raise UserError(
            f"{file}: {learned[0]}: the weights of this CRF are in the network's caffemodel; "
            "predict with that network itself, whose last layer it is"
        )
    try:
        # Seven digits are all that the message's float32 holds; more would show 0.1 as 0.10000000149.
        values = {name: float(f"{getattr(found, name):.7g}") for name in CrfParameters().numbers()}
        values |= {"max_iter": found.max_iter}
        return CrfParameters(**values, normalization=NORMALIZATIONS[found.normalization])
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def add_parameter_options(parser: argparse.ArgumentParser) -> None:
    """Options that set single parameters, `--bi-xy-std 60`."""
    group = parser.add_argument_group("CRF parameters", "each overrides the file's")
    texts = {
        "max_iter": "mean-field iterations",
        "pos_w": "weight of the positional kernel",
        "pos_xy_std": "its standard deviation, pixels",
        "bi_w": "weight of the bilateral kernel",
        "bi_xy_std": "its standard deviation in position, pixels",
        "bi_rgb_std": "its standard deviation in colour, of 0..255",
    }
    for name, default in CrfParameters().numbers().items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=int if name == "max_iter" else float,
            metavar="N" if name == "max_iter" else "X",
            help=f"{texts[name]} (default: {default:g})",
        )
    group.add_argument(
        f"--{NORMALIZATION}",
        type=str.upper,
        choices=NORMALIZATIONS,
        help=f"of both kernels: on both sides, on one, or none (default: {NORMALIZATIONS[0]})",
    )


def parameters_of(file: Path | None, options: Mapping[str, Any]) -> CrfParameters:
    """The parameters of a prototxt (None: the defaults) with single ones overridden.

    Args:
        file: as for `read_crf_parameters`.
        options: values by the parameters' names; None and other names are passed over.

    Raises:
        UserError: as `read_crf_parameters` does; for an option, names it.
    """
    base = CrfParameters() if file is None else read_crf_parameters(file)
    given = {field.name: options.get(field.name) for field in fields(CrfParameters)}
    try:
        return replace(base, **{name: value for name, value in given.items() if value is not None})
    except UserError as error:
        name = str(error).split()[0]
        raise UserError(f"--{name.replace('_', '-')}: {error}") from None
