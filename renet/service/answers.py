"""Answers: a palette PNG or an overlay, probabilities as NPZ, or JSON with shares and run-length masks."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import mimeparse
import numpy as np
from fastapi import HTTPException
from pycocotools import mask as coco_mask
from pydantic import BaseModel, Field

from renet.data.dataset import Dataset
from renet.data.label_maps import encode_label_map
from renet.data.overlay import draw_overlay

PNG, JSON, NPZ = "image/png", "application/json", "application/x-npz"
KINDS = (NPZ, JSON, PNG)  # the last one is the answer to */*
_ZIP64 = 2**31 - 2**16  # bytes of an array that take more than 32 bits to write down
_STAMP = (1980, 1, 1, 0, 0, 0)  # of files in a ZIP archive that tell no time


class ClassEntry(BaseModel):
    """A class of the network."""

    index: int = Field(description="Value of its pixels in a label map.")
    name: str
    colour: str = Field(description="#rrggbb, of the palette.", pattern="^#[0-9a-f]{6}$")


class Mask(BaseModel):
    """COCO's compressed run-length form, which pycocotools decodes."""

    size: tuple[int, int] = Field(description="Height and width.")
    counts: str


class ClassFound(ClassEntry):
    """A class that has pixels in the image."""

    pixels: int
    share: float = Field(description="Of all pixels, 0 to 1.")
    mask: Mask


class Labels(BaseModel):
    """What an image shows."""

    width: int
    height: int
    classes: list[ClassFound] = Field(description="Those that the image shows, the largest first.")


@dataclass(frozen=True)
class Answer:
    """An image and what the network says of it.

    Attributes:
        image: H x W x 3 uint8, BGR.
        labels: H x W uint8.
        probabilities: C x H x W float32; None where the answer is no NPZ.
        dataset: names and colours.
        overlay: draw the labels over the image where the answer is a PNG.
    """

    image: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None
    dataset: Dataset
    overlay: bool

    def encoded(self, kind: str) -> bytes:
        """The body of an answer of one of `KINDS`."""
        makers: dict[str, Callable[[], bytes]] = {PNG: self._png, JSON: self._json, NPZ: self._npz}
        return makers[kind]()

    def _png(self) -> bytes:
        if not self.overlay:
            return encode_label_map(self.labels, self.dataset)
        buffer = io.BytesIO()
        draw_overlay(self.image, self.labels, self.dataset).save(buffer, format="PNG")
        return buffer.getvalue()

    def _json(self) -> bytes:
        labels = self.labels
        counts = np.bincount(labels.ravel(), minlength=256)
        found = []
        for entry in sorted(class_entries(self.dataset), key=lambda entry: -counts[entry.index]):
            if counts[entry.index]:
                runs = coco_mask.encode(np.asfortranarray(labels == entry.index, dtype=np.uint8))
                found.append(
                    ClassFound(
                        **vars(entry),
                        pixels=counts[entry.index],
                        share=counts[entry.index] / labels.size,
                        mask=Mask(size=labels.shape, counts=runs["counts"].decode()),
                    )
                )
        height, width = labels.shape
        return Labels(width=width, height=height, classes=found).model_dump_json().encode()

    def _npz(self) -> bytes:
        """Arrays as `np.savez` writes them, and the palette PNG beside them: all of an answer in one."""
        assert self.probabilities is not None, "an NPZ is asked for with them"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in (("probabilities", self.probabilities.astype(np.float16)), ("labels", self.labels)):
                with archive.open(
                    zipfile.ZipInfo(f"{name}.npy", _STAMP), "w", force_zip64=array.nbytes >= _ZIP64
                ) as file:
                    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo("labels.png", _STAMP), encode_label_map(self.labels, self.dataset))
        return buffer.getvalue()


def class_entries(dataset: Dataset) -> list[ClassEntry]:
    """The classes with their colours."""
    return [
        ClassEntry(index=index, name=name, colour="#" + bytes(dataset.palette[index]).hex())
        for index, name in enumerate(dataset.classes)
    ]


def kind_of(accept: str) -> str:
    """The kind of answer that an Accept header asks for.

    Raises:
        HTTPException: 406, none of `KINDS`.
    """
    try:
        kind = mimeparse.best_match(KINDS, accept)
    except mimeparse.MimeTypeParseException:
        kind = ""
    if not kind:
        raise HTTPException(406, f"Accept is one of {', '.join(reversed(KINDS))}")
    return kind
