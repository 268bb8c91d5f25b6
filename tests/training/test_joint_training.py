"""Training a network together with its dense CRF, beside the CRF as mere post-processing."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import caffe
import pytest
from segmentation_helpers import write_split

from renet.conversion.synthetic_scenes import draw
from renet.data.catalog import SYNTHETIC_SCENES
from renet.data.dataset import IGNORE_LABEL
from renet.networks.files import Data, train_val_text
from renet.networks.models import MODELS
from renet.networks.schedules import adam, solver_text
from renet.networks.spec import Options

IMAGES = 8
CROP = (48, 64)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small split of drawn scenes."""
    folder = tmp_path_factory.mktemp("joint")
    write_split(folder / "train", scenes())
    return folder


def scenes() -> dict[str, tuple]:
    """Drawn scenes, BGR pictures and labels by image id."""
    drawn = [draw(seed=3, split=0, index=index, size=(48, 64)) for index in range(IMAGES)]
    return {f"scene{index}": (scene.image, scene.label) for index, scene in enumerate(drawn)}


def solver_of(workshop: Path, model: str, steps: int, name: str, seed: int) -> caffe.Solver:
    """A solver for a model of the generator's, whose test network goes over the very pictures it learns from."""
    split = str(workshop / "train")
    data = Data(name, len(SYNTHETIC_SCENES.classes), IGNORE_LABEL, (split,), split, IMAGES)
    options = Options(CROP, 4)
    net, solver = workshop / f"{name}.prototxt", workshop / f"{name}_solver.prototxt"
    net.write_text(train_val_text(MODELS[model], name, data, options))
    text = solver_text(name, str(net), adam(steps), name, IMAGES).replace("snapshot: ", f"snapshot: {steps + 1} #")
    assert "random_seed: 0" in text
    solver.write_text(text.replace("random_seed: 0", f"random_seed: {seed}"))
    return caffe.get_solver(str(solver))


def loss(solver: caffe.Solver) -> float:
    """The mean loss over all pictures."""
    network = solver.test_nets[0]
    network.share_with(solver.net)
    return sum(float(network.forward()["loss"]) for _ in range(IMAGES)) / IMAGES


def losses(workshop: Path, seed: int) -> tuple[float, float]:
    """Losses with the CRF: of a network that was trained without it, and of one that went on learning with it."""
    first = solver_of(workshop, "conv_small", 150, "first", seed)
    first.step(150)
    weights = str(workshop / "first.caffemodel")
    first.net.save(weights)

    alone = solver_of(workshop, "conv_small", 80, "alone", seed)
    joint = solver_of(workshop, "conv_small_crf", 80, "joint", seed)
    frozen = solver_of(workshop, "conv_small_crf", 80, "frozen", seed)
    alone.net.copy_from(weights)
    joint.net.copy_from(weights)
    before = loss(joint)
    start = [blob.data.copy() for blob in joint.net.params["crf"]]
    alone.step(80)
    joint.step(80)
    # The network went on learning for as long, and the CRF came afterwards.
    alone_weights = str(workshop / "alone.caffemodel")
    alone.net.save(alone_weights)
    frozen.net.copy_from(alone_weights)
    after, post_processing = loss(joint), loss(frozen)
    print(f"loss with the CRF: {before:.4f} at first, {post_processing:.4f} frozen, {after:.4f} trained jointly")
    assert after < before
    for blob, initial in zip(joint.net.params["crf"], start):
        assert abs(blob.data - initial).max() > 1e-3
    return post_processing, after


def test_joint_training_is_better_than_the_crf_as_post_processing(workshop: Path) -> None:
    caffe.set_mode_cpu()
    # One short training more or less says little: of eight seeds seven were better, by 8 to 56%, and one worse by 9%.
    of_seeds = [losses(workshop, seed) for seed in range(5)]
    assert median(joint / post_processing for post_processing, joint in of_seeds) < 0.98
