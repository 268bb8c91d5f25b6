"""Merge this project's messages into Caffe's ``caffe.proto``."""

from __future__ import annotations

import re

# The first number that upstream left free for a layer's own parameters is 149.
LAYER_FIELDS = (
    "optional ReNetParameter renet_param = 149;",
    "optional SegmentationDataParameter segmentation_data_param = 150;",
    "optional DenseCRFParameter dense_crf_param = 151;",
    "optional L2NormalizationParameter l2_normalization_param = 152;",
)


class MergeError(Exception):
    """The two files do not fit together; the message is one line."""


def merge(upstream: str, messages: list[str], fields: tuple[str, ...] = LAYER_FIELDS) -> str:
    """Text of ``caffe.proto`` with ``fields`` added to LayerParameter and the files ``messages`` appended.

    Raises MergeError where there is no LayerParameter, or where a field's number or name is taken already.
    """
    found = re.search(r"^message LayerParameter \{\n(.*?)^\}\n", upstream, re.DOTALL | re.MULTILINE)
    if not found:
        raise MergeError("caffe.proto has no message LayerParameter")
    for field in fields:
        name, number = re.fullmatch(r"\w+ \w+ (\w+) = (\d+);", field).groups()
        if re.search(rf"= {number}\b", found[1]) or re.search(rf"\b{name} =", found[1]):
            raise MergeError(f"LayerParameter has a field {name} or number {number} already")
    layer_fields = "".join(f"  {field}\n" for field in fields)
    # syntax and package may stand in a file only once, and upstream's do
    bodies = [re.sub(r"^(syntax|package)\b[^\n]*\n+", "", text, flags=re.MULTILINE) for text in messages]
    end = found.end(1)
    return "\n".join([upstream[:end] + layer_fields + upstream[end:], *bodies])
