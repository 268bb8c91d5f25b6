"""Synthetic outdoor scenes in which some regions are told apart only by what lies far away in the image."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from renet.common.parts import WHOLE, Part
from renet.conversion.prepare import OutputOptions, prepare
from renet.data.catalog import SYNTHETIC_SCENES
from renet.data.dataset import Dataset
from renet.data.images import EncodedImage, encode_png
from renet.data.split_writer import Pair, Sample

SKY, SEA, HILL, GRASS, TREE, HOUSE, BEACH, DESERT, ROAD, PATH = range(len(SYNTHETIC_SCENES.classes))
DRAWING = 1  # to be raised when the same seed gives other images
SMALLEST = (48, 64)
LARGEST = 4096
_OVERSAMPLING = 3  # drawn larger and averaged, so that edges are smooth; odd, so that a pixel's centre is one point
_STREAMS = ("coins", "layout", "light", "sky", "far", "meadow", "lane", "side", "sand", "noise")


@dataclass(frozen=True)
class Coins:
    """Choices that decide a scene's ambiguous regions: the sea at the horizon (or hills), houses at the side (or a
    wood)."""

    sea: bool
    houses: bool


@dataclass(frozen=True)
class Scene:
    """Drawn scene: `image` H x W x 3 uint8 BGR, `label` H x W uint8."""

    image: np.ndarray
    label: np.ndarray
    coins: Coins


class _Canvas:
    """The scene while it is drawn, `_OVERSAMPLING` times as large: RGB colours 0..1, and labels.

    `height` and `width` are always the whole scene's; `x` (1 x columns) and `y` (rows x 1) are the places of this
    canvas's own points in it, since `part` gives canvases that cover a part and share its memory.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height * _OVERSAMPLING, width * _OVERSAMPLING
        self.colours = np.zeros((self.height, self.width, 3), np.float32)
        self.label = np.zeros((self.height, self.width), np.uint8)
        self.y = np.arange(self.height, dtype=np.float32)[:, None]
        self.x = np.arange(self.width, dtype=np.float32)[None, :]

    def part(self, top: float, bottom: float, left: float = 0, right: float | None = None) -> _Canvas:
        """The canvas of these rows and columns, whole points outwards."""
        rows = slice(max(0, int(top)), min(self.height, int(bottom) + 1))
        columns = slice(max(0, int(left)), self.width if right is None else min(self.width, int(right) + 1))
        part = copy.copy(self)
        part.colours, part.label = self.colours[rows, columns], self.label[rows, columns]
        part.y, part.x = self.y[rows], self.x[:, columns]
        return part

    def line(self, values: np.ndarray) -> np.ndarray:
        """The values at this canvas's columns (1 x columns), of one for each column of the scene."""
        return values[self.x[0].astype(int)][None, :]

    def paint(self, mask: np.ndarray, colours: np.ndarray, label: int) -> None:
        """Give the masked points these colours (one, or one for each point of the canvas) and this label."""
        mask = np.broadcast_to(mask, self.label.shape)
        self.colours[mask] = np.clip(colours[mask] if colours.ndim == 3 else colours, 0, 1)
        self.label[mask] = label


def draw(seed: int, split: int, index: int, size: tuple[int, int], coins: Coins | None = None) -> Scene:
    """Draw scene `index` of a split, the same for the same arguments.

    Args:
        seed: of the dataset.
        split: number of the split, so that splits share no scene.
        index: number of the scene.
        size: height and width.
        coins: how the coins fall; None: as the seed says. Another fall changes the deciding things alone.
    """
    streams = {
        name: np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, split, index, number))))
        for number, name in enumerate(_STREAMS)
    }
    fallen = streams["coins"].random(2) < 0.5
    if coins is None:
        coins = Coins(sea=bool(fallen[0]), houses=bool(fallen[1]))
    canvas = _Canvas(*size)
    layout = _Layout(canvas, streams["layout"])
    _draw_sky(canvas, streams["sky"], layout)
    (_draw_sea if coins.sea else _draw_hills)(canvas, streams["far"], layout)
    _draw_meadow(canvas, streams["meadow"], layout)
    _draw_lane(canvas, streams["lane"], layout, ROAD if coins.houses else PATH)
    _draw_sand(canvas, streams["sand"], layout, BEACH if coins.sea else DESERT)
    (_draw_houses if coins.houses else _draw_wood)(canvas, streams["side"], layout)
    return Scene(*_develop(canvas, size, streams["light"], streams["noise"]), coins=coins)


class _Layout:
    """Where things are, in points of the canvas. Boundaries that run across are one value for each column."""

    def __init__(self, canvas: _Canvas, random: np.random.Generator) -> None:
        height, width = canvas.height, canvas.width
        across = np.arange(width, dtype=np.float32)
        margin = 2 * _OVERSAMPLING
        self.horizon = random.uniform(0.14, 0.22) * height
        # Far things end here ...
        far_end = self.horizon + random.uniform(0.10, 0.15) * height
        self.far_end = far_end + _wave(random, across, 0.012 * height)
        # ... and the sand begins at least a third of the height below.
        self.sand_begin = far_end + (1 / 3 + random.uniform(0.05, 0.13)) * height
        self.sand = self.sand_begin + _wave(random, across, 0.02 * height)
        # Beside the meadow's one end stands what decides, and the lane begins at least a quarter of the width away.
        self.mirrored = bool(random.random() < 0.5)
        self.side_width = random.uniform(0.17, 0.25) * width
        lane_begin = self.side_width + margin + (0.25 + random.uniform(0.0, 0.12)) * width
        top = self.far_end.max() + random.uniform(0.05, 0.10) * height
        bottom = self.sand.min() - random.uniform(0.03, 0.06) * height
        self.lane = (lane_begin, top, bottom)
        self.side = (self.far_end.min() - random.uniform(0.02, 0.08) * height, self.sand.min() - 0.01 * height)

    def sideways(self, canvas: _Canvas) -> np.ndarray:
        """Each point's distance from the side where the deciding thing stands."""
        return canvas.width - 1 - canvas.x if self.mirrored else canvas.x

    def side_part(self, canvas: _Canvas) -> _Canvas:
        """The part of the canvas where the deciding thing stands."""
        width = self.side_width + _OVERSAMPLING
        left, right = (canvas.width - 1 - width, canvas.width - 1) if self.mirrored else (0, width)
        return canvas.part(self.side[0] - 1, self.side[1] + 1, left, right)


def _draw_sky(canvas: _Canvas, random: np.random.Generator, layout: _Layout) -> None:
    canvas = canvas.part(0, layout.far_end.max())
    evening = random.random() < 0.35
    above = _colour(random, (0.20, 0.36, 0.62) if evening else (0.24, 0.50, 0.85), 0.06)
    below = _colour(random, (0.98, 0.68, 0.45) if evening else (0.78, 0.90, 0.97), 0.04)
    down = np.clip(canvas.y / (layout.horizon + 0.06 * canvas.height), 0, 1)[:, :, None]
    colours = above * (1 - down) + below * down
    across, high = random.uniform(0.1, 0.9) * canvas.width, random.uniform(0.15, 0.8) * layout.horizon
    distance = np.hypot(canvas.x - across, canvas.y - high) / canvas.height
    glow = np.exp(-distance / 0.09)[:, :, None] * 0.55
    sun = np.array((1.0, 0.93, 0.70), np.float32)
    colours = colours * (1 - glow) + sun * glow
    colours[distance < random.uniform(0.025, 0.04)] = (1.0, 0.97, 0.84)
    puffs = _noise(random, canvas, (7, 22), octaves=3) - random.uniform(0.0, 0.6)
    cover = np.clip(puffs * 1.6, 0, 0.9)[:, :, None]
    cloud = np.array((1.0, 0.86, 0.80) if evening else (0.98, 0.98, 1.0), np.float32)
    canvas.paint(np.True_, colours * (1 - cover) + cloud * cover, SKY)


def _draw_sea(canvas: _Canvas, random: np.random.Generator, layout: _Layout) -> None:
    canvas = canvas.part(layout.horizon, layout.far_end.max())
    far_end = canvas.line(layout.far_end)
    far, near = _colour(random, (0.10, 0.30, 0.55), 0.05), _colour(random, (0.20, 0.60, 0.70), 0.06)
    depth = np.clip((canvas.y - layout.horizon) / (far_end - layout.horizon), 0, 1)[:, :, None]
    colours = far * (1 - depth) + near * depth
    length = random.uniform(0.07, 0.12) * canvas.width
    ripple = np.sin(canvas.x / length * 6.28 + 3 * _noise(random, canvas, (6, 12)) + canvas.y * 6.28 / 9)
    crest = np.clip(ripple - 0.75, 0, 1)[:, :, None] * 2.2
    foam = np.clip(depth - 0.86, 0, 1) * 5
    colours = colours + (1 - colours) * np.clip(crest * (0.3 + 0.4 * depth) + foam, 0, 0.9)
    canvas.paint((canvas.y >= layout.horizon) & (canvas.y < far_end), colours, SEA)


def _draw_hills(canvas: _Canvas, random: np.random.Generator, layout: _Layout) -> None:
    canvas = canvas.part(0, layout.far_end.max())
    far_end = canvas.line(layout.far_end)
    far, near = _colour(random, (0.55, 0.58, 0.70), 0.05), _colour(random, (0.42, 0.36, 0.30), 0.06)
    ridges = 3
    for ridge in range(ridges):
        nearness = ridge / (ridges - 1)
        base = layout.horizon + (float(layout.far_end.mean()) - layout.horizon) * 0.45 * nearness
        lift = (0.055 - 0.02 * nearness) * canvas.height
        crest = base - lift + _wave(random, canvas.x, lift, waves=(1.5, 7.0))
        shade = 0.12 * _noise(random, canvas, (16, 8), octaves=3)[:, :, None]
        colours = far * (1 - nearness) + near * nearness + shade
        canvas.paint((canvas.y >= crest) & (canvas.y < far_end), colours, HILL)


def _draw_meadow(canvas: _Canvas, random: np.random.Generator, layout: _Layout) -> None:
    canvas = canvas.part(layout.far_end.min(), layout.sand.max())
    far_end = canvas.line(layout.far_end)
    far, near = _colour(random, (0.56, 0.70, 0.34), 0.06), _colour(random, (0.27, 0.52, 0.18), 0.06)
    down = np.clip((canvas.y - far_end) / (0.5 * canvas.height), 0, 1)[:, :, None]
    blades = 0.10 * _noise(random, canvas, (60, 30), octaves=2) + 0.07 * _noise(random, canvas, (6, 8), octaves=2)
    colours = far * (1 - down) + near * down + blades[:, :, None]
    rows, columns = canvas.label.shape
    flowers = random.random((rows // 3 + 1, columns // 3 + 1)) < random.uniform(0, 0.012)
    flowers = flowers.repeat(3, axis=0).repeat(3, axis=1)[:rows, :columns]
    colours[flowers] = _colour(random, (0.92, 0.85, 0.55), 0.15)
    canvas.paint(canvas.y >= far_end, colours, GRASS)


def _draw_lane(canvas: _Canvas, random: np.random.Generator, layout: _Layout, label: int) -> None:
    begin, top, bottom = layout.lane
    canvas = canvas.part(top, bottom)
    sideways = layout.sideways(canvas)
    slack = 0.2 * (bottom - top)
    upper = top + slack * 0.5 + _wave(random, canvas.x, slack * 0.5)
    lower = bottom - slack * 0.5 + _wave(random, canvas.x, slack * 0.5)
    middle, half = (upper + lower) / 2, (lower - upper) / 2
    # A rounded end, and from there to the other side of the image.
    along = np.clip((sideways - begin) / (0.10 * canvas.width), 0, 1)
    mask = (sideways >= begin) & (np.abs(canvas.y - middle) < half * np.sqrt(along * (2 - along)))
    colour = _colour(random, (0.52, 0.48, 0.46), 0.08)
    grain = 0.08 * _noise(random, canvas, (40, 40), octaves=2) + 0.04 * _noise(random, canvas, (5, 5))
    ruts = 0.05 * np.sin((canvas.y - middle) / half * random.uniform(4, 9))
    canvas.paint(mask, colour + (grain + ruts)[:, :, None], label)


def _draw_sand(canvas: _Canvas, random: np.random.Generator, layout: _Layout, label: int) -> None:
    canvas = canvas.part(layout.sand.min(), canvas.height)
    colour = _colour(random, (0.87, 0.74, 0.50), 0.07)
    length = random.uniform(0.03, 0.07) * canvas.height
    bend = 4 * _noise(random, canvas, (4, 4))
    ripples = 0.045 * np.sin(canvas.y / length * 6.28 + bend + canvas.x * random.uniform(-0.02, 0.02))
    grain = 0.06 * _noise(random, canvas, (70, 50), octaves=2) + 0.05 * _noise(random, canvas, (5, 4), octaves=2)
    colours = colour + (ripples + grain)[:, :, None]
    for _ in range(random.integers(0, 7)):
        x, y = random.uniform(0, canvas.width), random.uniform(layout.sand_begin + 0.08 * canvas.height, canvas.height)
        radius = random.uniform(0.008, 0.018) * canvas.height
        stone = ((canvas.x - x) / 1.5) ** 2 + (canvas.y - y) ** 2 < radius**2
        colours[stone] = _colour(random, (0.55, 0.50, 0.45), 0.08)
    canvas.paint(canvas.y >= canvas.line(layout.sand), colours, label)


def _draw_wood(canvas: _Canvas, random: np.random.Generator, layout: _Layout) -> None:
    top, bottom = layout.side
    canvas = layout.side_part(canvas)
    sideways = layout.sideways(canvas)
    bark = _colour(random, (0.32, 0.22, 0.14), 0.04)
    green = _colour(random, (0.12, 0.34, 0.14), 0.05)
    leaves = green + 0.13 * _noise(random, canvas, (50, 50), octaves=3)[:, :, None]
    rows = 3
    for row in range(rows):  # from the back to the front
        foot = bottom - (rows - 1 - row) * 0.25 * (bottom - top)
        for _ in range(4):
            radius = random.uniform(0.18, 0.26) * (bottom - top)
            at = random.uniform(0, max(1.0, layout.side_width - radius))
            crown = max(foot - random.uniform(0.9, 1.6) * radius, top + 1.15 * radius)
            trunk = (np.abs(sideways - at) < 0.16 * radius) & (canvas.y > crown) & (canvas.y < foot)
            canvas.paint(trunk, bark, TREE)
            ball = (sideways - at) ** 2 + ((canvas.y - crown) / 1.15) ** 2 < radius**2
            ball &= canvas.y < bottom
            lit = 0.75 + 0.4 * np.clip((crown + radius - canvas.y) / (2 * radius), 0, 1)[:, :, None]
            canvas.paint(ball, leaves * lit, TREE)


def _draw_houses(canvas: _Canvas, random: np.random.Generator, layout: _Layout) -> None:
    top, bottom = layout.side
    canvas = layout.side_part(canvas)
    sideways = layout.sideways(canvas)
    houses = random.integers(1, 3)
    width = layout.side_width / houses
    for house in range(houses):
        left = house * width
        peak = top + random.uniform(0.0, 0.15) * (bottom - top)
        eaves = peak + random.uniform(0.30, 0.42) * (bottom - top)
        wall = _colour(random, (0.88, 0.80, 0.70), 0.09)
        roof = _colour(random, (0.62, 0.24, 0.17), 0.07)
        glass = _colour(random, (0.25, 0.30, 0.40), 0.05)
        inside = np.clip((sideways - left) / width, 0, 1)
        here = (sideways >= left) & (sideways < left + width)
        rise = 1 - np.abs(inside - 0.5) * 1.7
        above = here & (canvas.y >= eaves - rise * (eaves - peak)) & (canvas.y < eaves)
        tiles = 0.05 * np.sign(np.sin(canvas.y * 1.1))[:, :, None]
        canvas.paint(above, np.broadcast_to(roof + tiles, canvas.colours.shape), HOUSE)
        body = here & (inside > 0.06) & (inside < 0.94) & (canvas.y >= eaves) & (canvas.y < bottom)
        plaster = 0.03 * _noise(random, canvas, (30, 30))[:, :, None]
        canvas.paint(body, wall + plaster, HOUSE)
        storey = (canvas.y - eaves) / (bottom - eaves)
        pane = (np.abs(inside - 0.28) < 0.09) | (np.abs(inside - 0.72) < 0.09)
        canvas.paint(
            body & pane & (((storey > 0.12) & (storey < 0.40)) | ((storey > 0.55) & (storey < 0.82))), glass, HOUSE
        )
        door = body & (np.abs(inside - 0.5) < 0.08) & (storey > 0.58)
        canvas.paint(door, roof * 0.6, HOUSE)


def _develop(
    canvas: _Canvas, size: tuple[int, int], light: np.random.Generator, noise: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The canvas as a photograph: H x W x 3 uint8 BGR, and the label under each pixel's centre."""
    height, width = size
    colours = cv2.resize(canvas.colours, (width, height), interpolation=cv2.INTER_AREA)
    colours = np.clip(colours * light.uniform(0.80, 1.08) * light.uniform(0.95, 1.05, 3), 0, 1) ** light.uniform(
        0.9, 1.15
    )
    colours = colours + noise.normal(0, light.uniform(0.005, 0.03), colours.shape)
    pixels = np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)[:, :, ::-1]
    centre = _OVERSAMPLING // 2
    return np.ascontiguousarray(pixels), canvas.label[centre::_OVERSAMPLING, centre::_OVERSAMPLING].copy()


def _colour(random: np.random.Generator, around: tuple[float, float, float], spread: float) -> np.ndarray:
    """An RGB colour near `around`: lightness and hue vary independently."""
    varied = np.array(around) + random.uniform(-spread, spread) + random.uniform(-spread / 2, spread / 2, 3)
    return np.clip(varied, 0, 1).astype(np.float32)


def _wave(
    random: np.random.Generator, across: np.ndarray, height: float, waves: tuple[float, float] = (0.6, 3.0)
) -> np.ndarray:
    """A smooth line of values within -height .. height, one for each column."""
    total = np.zeros(across.shape, np.float32)
    for strength in (0.5, 0.3, 0.2):
        count = random.uniform(*waves)
        total += strength * np.sin(across * (count * 2 * np.pi / across.size) + random.uniform(0, 2 * np.pi))
    return height * total


def _noise(random: np.random.Generator, canvas: _Canvas, cells: tuple[int, int], octaves: int = 1) -> np.ndarray:
    """Smooth noise over the canvas, about -1 .. 1; `cells` across and down a whole scene, doubled with each octave."""
    rows, columns = canvas.label.shape
    total = np.zeros((rows, columns), np.float32)
    for octave in range(octaves):
        across = max(1, round(cells[0] * 2**octave * columns / canvas.width))
        down = max(1, round(cells[1] * 2**octave * rows / canvas.height))
        grid = random.uniform(-1, 1, (down + 1, across + 1)).astype(np.float32)
        total += cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total


def read_pair(seed: int, split: int, index: int, size: tuple[int, int]) -> Pair:
    """Draw one scene, ready to be written."""
    scene = draw(seed, split, index, size)
    return Pair(EncodedImage(encode_png(scene.image), *size), scene.label)


def make_samples(seed: int, split: int, count: int, size: tuple[int, int]) -> list[Sample]:
    """List the scenes of a split."""
    return [
        Sample(
            id=f"scene_{index:05d}",
            fingerprint=f"{DRAWING}/{seed}/{split}/{size[0]}x{size[1]}",
            read=partial(read_pair, seed, split, index, size),
            label_where=f"scene {index}",
        )
        for index in range(count)
    ]


def convert(out: Path, seed: int, train: int, test: int, size: tuple[int, int], part: Part = WHOLE) -> Dataset:
    """Draw `train` and `test` scenes of `size` (height, width) and prepare them as splits of these names.

    Raises:
        UserError: see `prepare`.
    """
    return prepare(
        OutputOptions(out, part=part),
        name=SYNTHETIC_SCENES.name,
        classes=SYNTHETIC_SCENES.classes,
        palette=SYNTHETIC_SCENES.palette,
        splits={"train": make_samples(seed, 0, train, size), "test": make_samples(seed, 1, test, size)},
        training=["train"],
        distant_context_classes=SYNTHETIC_SCENES.distant_context_classes,
    )
