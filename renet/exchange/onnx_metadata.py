"""What an ONNX file says of its network beside the graph: input transform, classes, and what was left out.

Each value of the file's metadata is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.errors import UserError
from renet.data.dataset import Dataset
from renet.networks.deploy_network import InputTransform


@dataclass(frozen=True)
class OnnxMetadata:
    """Description of an exported network.

    Attributes:
        input: the input that takes the image.
        output: the output that holds the probabilities, where it is known.
        transform: of the image's values, where it is known.
        dataset: names and colours of the classes, where they are known.
        left_out: what followed in Caffe and has no ONNX form, as prototxt, a layer each.
    """

    input: str | None = None
    output: str | None = None
    transform: InputTransform | None = None
    dataset: Dataset | None = None
    left_out: tuple[str, ...] = ()

    def properties(self) -> dict[str, str]:
        """Write it as the properties of a file."""
        content: dict[str, Any] = {"input": self.input, "output": self.output}
        if self.transform is not None:
            # The image's values are 0..255 before the mean is taken off
            content |= {"mean": self.transform.mean, "scale": self.transform.scale, "channel_order": "BGR"}
        if self.dataset is not None:
            content |= {
                "dataset": self.dataset.name,
                "classes": self.dataset.classes,
                "palette": self.dataset.palette.tolist(),
                "ignore_label": self.dataset.ignore_label,
            }
        content["left_out"] = self.left_out or None
        return {
            name: json.dumps(value, ensure_ascii=False) for name, value in content.items() if value is not None
        }  # fmt: skip

    @classmethod
    def read(cls, properties: Mapping[str, str], file: Path) -> OnnxMetadata:
        """Read what `properties` wrote; of a file from elsewhere, all is unknown.

        Raises:
            UserError: a property is damaged; names the file.
        """
        try:
            content = {name: json.loads(properties[name]) for name in _NAMES if name in properties}
            if content.get("channel_order", "BGR") != "BGR":
                raise ValueError(f"channel_order is {content['channel_order']!r}")
            transform = dataset = None
            if "mean" in content:
                transform = InputTransform(tuple(map(float, content["mean"])), float(content["scale"]))
            if "classes" in content:
                palette = np.array(content["palette"], np.uint8)
                if palette.shape != (len(content["classes"]), 3):
                    raise ValueError("the palette has not one colour for each class")
                dataset = Dataset(
                    name=content["dataset"],
                    classes=tuple(content["classes"]),
                    palette=palette,
                    mean=(0, 0, 0) if transform is None else transform.mean,  # type: ignore[arg-type]
                    ignore_label=int(content["ignore_label"]),
                    splits={},
                    folder=file.parent,
                )
            left_out = tuple(content.get("left_out", ()))
            return cls(content.get("input"), content.get("output"), transform, dataset, left_out)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise UserError(f"{file}: its metadata are not those of tools/export_onnx.py: {error}") from None


_NAMES = (
    *("input", "output", "mean", "scale", "channel_order"),
    *("dataset", "classes", "palette", "ignore_label", "left_out"),
)
