"""The drawn scenes: the same for a seed, and decided by nothing that is near."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_prep_helpers import DATA_PREP, complaint, convert, succeeded
from hold import Hold
from scipy.ndimage import distance_transform_edt

from renet.conversion.synthetic_scenes import BEACH, DESERT, HILL, HOUSE, PATH, ROAD, SEA, TREE, Coins, Scene, draw
from renet.data.catalog import SYNTHETIC_SCENES
from renet.data.dataset import Dataset
from renet.data.split_reader import SplitReader

SCRIPT = "synthetic_scenes.py"
SIZE = (96, 128)
WINDOW = 15


def other(coins: Coins, which: str) -> Coins:
    return Coins(coins.sea != (which == "sea"), coins.houses != (which == "houses"))


@pytest.mark.parametrize("size", [SIZE, (48, 64), (90, 200)])
@pytest.mark.parametrize(
    ("coin", "decided", "reach"),
    [("sea", (BEACH, DESERT), lambda size: size[0] // 3), ("houses", (ROAD, PATH), lambda size: size[1] // 4)],
)
def test_what_decides_is_all_that_differs_and_is_far_away(
    size: tuple[int, int], coin: str, decided: tuple[int, int], reach: Callable[[tuple[int, int]], int]
) -> None:
    for index in range(8):
        scene = draw(3, 0, index, size)
        twin = draw(3, 0, index, size, other(scene.coins, coin))
        assert scene.coins != twin.coins
        region = np.isin(scene.label, decided)
        assert region.mean() > 0.04
        assert np.array_equal(region, np.isin(twin.label, decided))
        assert not (scene.label[region] == twin.label[region]).any()
        # Every pixel that differs is farther away than `reach`, so no window that ends before it holds a hint.
        differing = (scene.image != twin.image).any(axis=2)
        assert differing.any()
        assert distance_transform_edt(~differing)[region].min() >= reach(size)


def test_coins_are_fair_independent_and_what_the_labels_say() -> None:
    scenes = [draw(0, 0, index, (48, 64)) for index in range(300)]
    falls = np.array([(scene.coins.sea, scene.coins.houses) for scene in scenes])
    assert np.abs(falls.mean(axis=0) - 0.5).max() < 0.1
    assert abs((falls[:, 0] == falls[:, 1]).mean() - 0.5) < 0.1
    for scene in scenes[:60]:
        present = set(np.unique(scene.label))
        assert {SEA, BEACH} <= present if scene.coins.sea else {HILL, DESERT} <= present
        assert {HOUSE, ROAD} <= present if scene.coins.houses else {TREE, PATH} <= present
        assert len(present) == 6  # with sky and grass; nothing of the other fall


def window_features(scene: Scene, region: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Local statistics of a window whose centre lies in the region: colours, their spread and their gradients."""
    half = WINDOW // 2
    inside = np.zeros_like(region)
    inside[half:-half, half:-half] = region[half:-half, half:-half]
    y, x = random.choice(np.argwhere(inside))
    window = scene.image[y - half : y + half + 1, x - half : x + half + 1].astype(float)
    down, across = np.abs(np.diff(window, axis=0)), np.abs(np.diff(window, axis=1))
    parts = (window.mean((0, 1)), window.std((0, 1)), down.mean((0, 1)), across.mean((0, 1)))
    return np.concatenate([*parts, window.min((0, 1)), window.max((0, 1)), window[half, half]])


def nearest_neighbours(train: np.ndarray, truth: np.ndarray, test: np.ndarray, count: int = 5) -> np.ndarray:
    centre, spread = train.mean(0), train.std(0) + 1e-9
    distances = np.linalg.norm(((test - centre) / spread)[:, None] - ((train - centre) / spread)[None], axis=2)
    return truth[np.argsort(distances, axis=1)[:, :count]].mean(axis=1) > 0.5


def linear(train: np.ndarray, truth: np.ndarray, test: np.ndarray) -> np.ndarray:
    centre, spread = train.mean(0), train.std(0) + 1e-9
    rows = np.c_[(train - centre) / spread, np.ones(len(train))]
    weights = np.linalg.solve(rows.T @ rows + np.eye(rows.shape[1]), rows.T @ (truth * 2.0 - 1))
    return np.c_[(test - centre) / spread, np.ones(len(test))] @ weights > 0


def test_local_windows_are_at_chance_and_the_far_away_decides() -> None:
    scenes = [draw(7, 0, index, SIZE) for index in range(300)]
    random = np.random.default_rng(0)
    half = len(scenes) // 2
    for decided, deciding, coin in (
        ((BEACH, DESERT), (SEA, HILL), "sea"),
        ((ROAD, PATH), (HOUSE, TREE), "houses"),
    ):
        truth = np.array([getattr(scene.coins, coin) for scene in scenes])

        def features(classes: tuple[int, int]) -> np.ndarray:
            return np.array([window_features(s, np.isin(s.label, classes), random) for s in scenes])

        near, far = features(decided), features(deciding)
        for classify in (nearest_neighbours, linear):
            # 150 fair coins lie within 0.14 of one half in 999 cases of 1000.
            assert abs((classify(near[:half], truth[:half], near[half:]) == truth[half:]).mean() - 0.5) < 0.14
            assert (classify(far[:half], truth[:half], far[half:]) == truth[half:]).mean() > 0.93


def test_scenes_differ_from_each_other_and_between_splits() -> None:
    scenes = [draw(0, split, index, (48, 64)) for split in (0, 1) for index in range(5)]
    scenes.append(draw(1, 0, 0, (48, 64)))
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)
    assert len({scene.label.tobytes() for scene in scenes}) == len(scenes)


def test_same_seed_gives_the_same_dataset(tmp_path: Path) -> None:
    small = ("--train", 6, "--test", 3, "--size", "48x64")
    for name in ("a", "b"):
        succeeded(convert(SCRIPT, "--out", tmp_path / name, *small))
    succeeded(convert(SCRIPT, "--out", tmp_path / "c", *small, "--seed", 1))
    a, b, c = (Dataset.open(tmp_path / name) for name in "abc")
    assert a.splits == b.splits
    assert a.splits["train"].sha256 != c.splits["train"].sha256
    assert (tmp_path / "a/dataset.json").read_bytes() == (tmp_path / "b/dataset.json").read_bytes()
    assert a.classes == SYNTHETIC_SCENES.classes
    assert a.distant_context_classes == SYNTHETIC_SCENES.distant_context_classes
    with SplitReader(tmp_path / "a/train") as reader:
        scene = draw(0, 0, 5, (48, 64))
        assert reader.ids()[5] == "scene_00005"
        assert np.array_equal(reader.image(5), scene.image)
        assert np.array_equal(reader.label(5), scene.label)


def test_killed_drawing_is_resumed(tmp_path: Path) -> None:
    arguments = ["--train", "80", "--test", "3", "--size", "48x64"]
    command = [sys.executable, str(DATA_PREP / SCRIPT), "--out", str(tmp_path / "killed"), *arguments]
    partial = tmp_path / "killed" / ".train.partial"
    # the first says that nothing is written yet, the second that a part is
    hold = Hold.make(tmp_path, r"os\.rename .*/\.train\.partial/split\.json", number=3)
    with subprocess.Popen(
        command, env=os.environ | hold.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as drawing:
        hold.wait(drawing)
        drawing.send_signal(signal.SIGKILL)
    assert '"done": 32,' in (partial / "split.json").read_text()
    assert drawing.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path / "killed") == [".train.partial"]
    resumed = convert(SCRIPT, "--out", tmp_path / "killed", *arguments)
    succeeded(resumed)
    succeeded(convert(SCRIPT, "--out", tmp_path / "unbroken", *arguments))
    assert Dataset.open(tmp_path / "killed").splits == Dataset.open(tmp_path / "unbroken").splits
    assert sorted(os.listdir(tmp_path / "killed")) == ["dataset.json", "test", "train"]


def test_bad_arguments(tmp_path: Path) -> None:
    for wrong in (("--size", "96"), ("--size", "10x10"), ("--train", "0"), ("--seed", "x")):
        assert wrong[0] in complaint(convert(SCRIPT, "--out", tmp_path / "out", *wrong))
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in complaint(convert(SCRIPT, "--out", tmp_path / "file"))
