"""The parameters of a request."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from renet.prediction.crf_parameters import NORMALIZATIONS, CrfParameters
from renet.prediction.inference import PredictionSettings

MOST_SCALES = 8
_LEAST_WEIGHT = 1e-6


def _choice(description: str) -> Any:
    """Make a field whose default None, which no request can say, stands for the service's own value."""
    return Field(default=None, description=description, json_schema_extra=lambda schema: schema.pop("default", None))


def _round_to_zero(weight: float) -> float:
    """Take what Caffe's float32 does not tell from 0 for that."""
    return weight if weight >= _LEAST_WEIGHT else 0.0


Scale = Annotated[float, Field(ge=0.1, le=4)]
Weight = Annotated[float, Field(ge=0, le=1000), AfterValidator(_round_to_zero)]
Deviation = Annotated[float, Field(ge=0.1, le=1000)]


class Parameters(BaseModel):
    """How an image is to be predicted; what is not said is as `/model` tells under `defaults`."""

    model_config = ConfigDict(extra="forbid")

    flip: bool = _choice("Average with the prediction of the mirrored image.")
    scales: Annotated[list[Scale], Field(min_length=1, max_length=MOST_SCALES)] = _choice(
        "Average the predictions of the image resized by each of these; the parameter is given once for each."
    )
    crf: bool = _choice("Sharpen the result with a dense CRF.")
    max_iter: Annotated[int, Field(ge=0, le=100)] = _choice("Mean-field iterations of the CRF.")
    pos_w: Weight = _choice("Weight of the CRF's positional kernel.")
    pos_xy_std: Deviation = _choice("Its standard deviation, pixels.")
    bi_w: Weight = _choice("Weight of the CRF's bilateral kernel.")
    bi_xy_std: Deviation = _choice("Its standard deviation in position, pixels.")
    bi_rgb_std: Deviation = _choice("Its standard deviation in colour, of 0..255.")
    normalization: Literal[NORMALIZATIONS] = _choice("Of both kernels.")  # type: ignore[valid-type]
    overlay: bool = Field(
        default=False, description="A PNG shows the labels over the image, with a legend, in place of the label map."
    )

    def settings(self, defaults: PredictionSettings, crf: CrfParameters) -> PredictionSettings:
        """Lay them over the service's own.

        Args:
            defaults: where nothing is said.
            crf: the CRF's parameters where nothing is said of them.
        """
        given = {name: getattr(self, name) for name in ("flip", "scales") if getattr(self, name) is not None}
        if "scales" in given:
            given["scales"] = tuple(given["scales"])
        chosen = {name: value for name in vars(crf) if (value := getattr(self, name)) is not None}
        sharpened = defaults.crf is not None if self.crf is None else self.crf
        return replace(defaults, **given, crf=replace(crf, **chosen) if sharpened else None)


def defaults_of(settings: PredictionSettings, crf: CrfParameters) -> dict[str, Any]:
    """The service's own values, by the parameters' names."""
    return {"flip": settings.flip, "scales": list(settings.scales), "crf": settings.crf is not None, **vars(crf)}
