"""renet.Predictor as a program embeds it: a tiny network whose answers NumPy can give, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from segmentation_helpers import write_weights

import renet

pytest.importorskip("caffe", reason="pycaffe is not built")

KERNEL = np.random.default_rng(3).normal(size=(3, 3, 1, 1)).astype(np.float32)  # classes x channels (BGR)
DEPLOY = """
layer { name: "data" type: "Input" top: "data" transform_param { mean_value: 100 scale: 0.01 }
        input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "scores" type: "Convolution" bottom: "data" top: "scores"
        convolution_param { num_output: 3 kernel_size: 1 } }
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }
"""


def image(height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    """H x W x 3 uint8, RGB."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def expected(rgb: np.ndarray) -> np.ndarray:
    """C x H x W probabilities."""
    scores = np.einsum("hwc,kc->khw", (rgb[:, :, ::-1] - 100.0) * 0.01, KERNEL[:, :, 0, 0])
    exponential = np.exp(scores)
    return exponential / exponential.sum(axis=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    (folder / "deploy.prototxt").write_text(DEPLOY)
    write_weights(folder / "net.caffemodel", {"scores": [KERNEL, np.zeros(3, np.float32)]})
    (folder / "checked.prototxt").write_text(DEPLOY.replace("kernel_size: 1", "kernel_size: 3 pad: 0"))
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    write_weights(folder / "checked.caffemodel", {"scores": [kernel, np.zeros(3, np.float32)]})
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["isolated", "in process"])
def predictor(folder: Path, request: pytest.FixtureRequest) -> renet.Predictor:
    with renet.Predictor(folder / "deploy.prototxt", folder / "net.caffemodel", isolated=request.param) as made:
        yield made


def test_arrays_files_and_both_orders(predictor: renet.Predictor, tmp_path: Path) -> None:
    rgb = image()
    labels, probabilities = predictor.predict(rgb, probabilities=True)
    np.testing.assert_allclose(probabilities, expected(rgb), atol=1e-5)
    assert probabilities.dtype == np.float32 and labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected(rgb).argmax(axis=0))
    np.testing.assert_array_equal(predictor.predict(rgb), labels)
    np.testing.assert_array_equal(predictor.predict(rgb[:, :, ::-1], order="BGR"), labels)
    assert not np.array_equal(predictor.predict(rgb, order="BGR"), labels)
    cv2.imwrite(str(tmp_path / "a.png"), rgb[:, :, ::-1])
    np.testing.assert_array_equal(predictor.predict(tmp_path / "a.png"), labels)
    np.testing.assert_array_equal(predictor.predict(str(tmp_path / "a.png")), labels)
    assert predictor.classes is None


def test_several_images_of_any_size(predictor: renet.Predictor) -> None:
    images = [image(6, 8, 1), image(1, 1, 2), image(31, 5, 3)]
    found = predictor.predict(iter(images))
    assert [labels.shape for labels in found] == [(6, 8), (1, 1), (31, 5)]
    for labels, each in zip(found, images):
        np.testing.assert_array_equal(labels, expected(each).argmax(axis=0))
    stack = np.stack([image(6, 8, seed) for seed in range(3)])
    assert [one.probabilities.shape for one in predictor.predict(stack, probabilities=True)] == 3 * [(3, 6, 8)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"the image: is 4 x 4 x 3 float32; an image is H x W x 3 uint8"),
        (np.zeros((4, 4), np.uint8), r"the image: is 4 x 4 uint8"),
        (np.zeros((0, 4, 3), np.uint8), r"the image: is 0 x 4 x 3 uint8"),
        ([image(), None], "image 1: is a NoneType; an image is"),
        ("nowhere.png", "nowhere.png: no such file"),
        (__file__, "test_predictor.py: not an image that can be read"),
    ],
)
def test_what_is_no_image_is_refused_and_the_next_served(predictor: renet.Predictor, bad: object, message: str) -> None:
    with pytest.raises(renet.UserError, match=message):
        predictor.predict(bad)
    assert predictor.predict(image()).shape == (6, 8)
    with pytest.raises(renet.UserError, match="order is"):
        predictor.predict(image(), order="RGBA")


def test_threads_share_a_predictor(predictor: renet.Predictor) -> None:
    images = [image(5, 7, seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for labels, each in zip(pool.map(predictor.predict, images), images):
            np.testing.assert_array_equal(labels, expected(each).argmax(axis=0))


def test_flip_scale_and_crf_are_those_of_predict_py(folder: Path, tmp_path: Path) -> None:
    files = folder / "deploy.prototxt", folder / "net.caffemodel"
    rgb = image(12, 16)
    with renet.Predictor(*files) as plain, renet.Predictor(*files, flip=True, image_scale=0.5, min_size=(9, 9)) as half:
        sharp, small = plain.predict(rgb, probabilities=True), half.predict(rgb, probabilities=True)
    shrunk = expected(cv2.resize(rgb, (8, 6), interpolation=cv2.INTER_AREA))
    resampled = np.stack([cv2.resize(plane, (16, 12), interpolation=cv2.INTER_LINEAR) for plane in shrunk])
    np.testing.assert_allclose(small.probabilities, resampled, atol=1e-5)
    (tmp_path / "crf.prototxt").write_text("dense_crf_param { max_iter: 3 bi_rgb_std: 9 }")
    found = []
    for crf in (renet.CrfParameters(), renet.CrfParameters(max_iter=0), tmp_path / "crf.prototxt"):
        with renet.Predictor(*files, crf=crf) as predictor:
            found.append(predictor.predict(rgb, probabilities=True).probabilities)
    np.testing.assert_allclose(found[1], sharp.probabilities, atol=1e-4)
    assert np.abs(found[0] - sharp.probabilities).max() > 0.01 and np.abs(found[2] - found[0]).max() > 0.001
    with pytest.raises(renet.UserError, match=r"deploy.prototxt: has no deploy_crf.prototxt"):
        renet.Predictor(*files, crf=True)
    for options, message in (
        ({"image_scale": 2}, "image_scale is over 0"),
        ({"scales": ()}, "scales are one or more numbers over 0"),
        ({"scales": (1, float("nan"))}, "scales are one or more numbers over 0"),
        ({"window": (8, 8), "overlap": 8}, "the overlap of windows of 8 x 8 is 0 to 7 pixels, not 8"),
        ({"overlap": 8}, "an overlap needs a window"),
    ):
        with pytest.raises(renet.UserError, match=message):
            renet.Predictor(*files, **options)


def test_scales_and_windows(folder: Path) -> None:
    files = folder / "deploy.prototxt", folder / "net.caffemodel"
    rgb = image(12, 16)
    with renet.Predictor(*files, scales=[0.5, 1, 2]) as predictor:
        several = predictor.predict(rgb, probabilities=True)
    found = []
    for size, way in (((8, 6), cv2.INTER_AREA), ((16, 12), cv2.INTER_AREA), ((32, 24), cv2.INTER_LINEAR)):
        seen = expected(cv2.resize(rgb, size, interpolation=way))
        found.append([cv2.resize(plane, (16, 12), interpolation=cv2.INTER_LINEAR) for plane in seen])
    np.testing.assert_allclose(several.probabilities, np.mean(found, axis=0), atol=1e-5)
    # a network that sees one pixel at a time says the same in windows
    with renet.Predictor(*files, window=(5, 7)) as predictor:
        labels, probabilities = predictor.predict(rgb, probabilities=True)
        np.testing.assert_allclose(probabilities, expected(rgb), atol=1e-5)
        np.testing.assert_array_equal(predictor.predict(rgb), labels)


@pytest.mark.parametrize("isolated", [True, False])
def test_files_that_do_not_serve(folder: Path, tmp_path: Path, isolated: bool) -> None:
    deploy, weights = folder / "deploy.prototxt", folder / "net.caffemodel"
    for arguments, message in (
        ((tmp_path / "no.prototxt", weights), "no.prototxt: no such file or model folder"),
        ((deploy,), "deploy.prototxt: needs its weights"),
        ((deploy, tmp_path / "no.caffemodel"), "no.caffemodel: no such file"),
        ((deploy, deploy), "not a Caffe model"),
        ((weights, weights), "net.caffemodel"),
        ((tmp_path,), "not a model folder"),
        ((tmp_path, weights), "a model folder has its own weights"),
    ):
        with pytest.raises(renet.UserError, match=message):
            renet.Predictor(*arguments, isolated=isolated)


def test_a_network_that_caffe_refuses(folder: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.prototxt"
    wrong.write_text(DEPLOY.replace('bottom: "data"', 'bottom: "date"'))
    with pytest.raises(renet.UserError, match=r"wrong.prototxt: Caffe cannot make this network: .*Unknown bottom"):
        renet.Predictor(wrong, folder / "net.caffemodel")


def test_a_failed_check_is_an_error_of_that_image_alone(folder: Path) -> None:
    """A 3 x 3 convolution without padding cannot take 1 x 1: Caffe aborts. To larger ones its answer is too small."""
    with renet.Predictor(folder / "checked.prototxt", folder / "checked.caffemodel") as predictor:
        for _ in range(2):
            with pytest.raises(renet.UserError, match=r"image 0: Caffe stopped at this image: .*Check failed"):
                predictor.predict([image(1, 1)])
            with pytest.raises(renet.UserError, match=r"the image: .*expected 1 x 3 x 6 x 8"):
                predictor.predict(image())


def children_of(parent: int) -> set[int]:
    return set(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))


SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
import renet
image = np.zeros((6, 8, 3), np.uint8)
predictor = renet.Predictor("deploy.prototxt", "net.caffemodel", verbose=len(sys.argv) > 1)
predictor.predict(image)
me = os.getpid()
(child,) = map(int, Path(f"/proc/{me}/task/{me}/children").read_text().split())
os.kill(child, signal.SIGKILL)
try:
    predictor.predict(image)
except renet.UserError as error:
    print(error)
assert predictor.predict(image).shape == (6, 8)
assert "caffe" not in sys.modules
print(sum(map(len, predictor.predict([image, image]))))
"""


def script(folder: Path, *arguments: str, text: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    return subprocess.run(
        [sys.executable, "script.py", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_a_script_without_a_guard_is_quiet_and_survives_the_childs_death(folder: Path) -> None:
    done = script(folder)
    assert (done.returncode, done.stderr) == (0, "")
    died, total = done.stdout.splitlines()
    assert died.startswith("the image: Caffe stopped at this image: the working process was ended by SIGKILL")
    assert total == "12"


def test_verbose_lets_caffes_lines_through(folder: Path) -> None:
    assert "Creating Layer scores" in script(folder, "loud").stderr


@pytest.mark.parametrize("verbose", [True, False])
def test_in_the_callers_process_likewise(folder: Path, verbose: bool) -> None:
    done = script(
        folder,
        text=f"""
import numpy as np, renet
with renet.Predictor("deploy.prototxt", "net.caffemodel", isolated=False, verbose={verbose}) as predictor:
    print(predictor.predict(np.zeros((6, 8, 3), np.uint8)).shape)
""",
    )
    assert done.stdout == "(6, 8)\n"
    assert ("Creating Layer scores" in done.stderr) == verbose
    assert verbose or done.stderr == ""


def test_no_child_outlives_its_predictor_or_its_parent(folder: Path) -> None:
    done = script(
        folder,
        text="""
import os, signal, sys
from pathlib import Path
import renet
def children():
    me = os.getpid()
    return Path(f"/proc/{me}/task/{me}/children").read_text().split()
files = "deploy.prototxt", "net.caffemodel"
with renet.Predictor(*files) as closed: assert len(children()) == 1
assert children() == []
closed.close()
dropped = renet.Predictor(*files)
del dropped
assert children() == []
kept = renet.Predictor(*files)
print(*children(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    ended = os.pidfd_open(int(done.stdout)) if Path(f"/proc/{done.stdout.strip()}").exists() else None
    if ended is not None:
        import select

        assert select.select([ended], [], [], 60)[0], "the child of a killed parent goes on"
        os.close(ended)


def test_closed_and_forked_predictors_refuse(folder: Path) -> None:
    predictor = renet.Predictor(folder / "deploy.prototxt", folder / "net.caffemodel")
    expected_labels = predictor.predict(image())
    child = os.fork()
    if child == 0:
        try:
            predictor.predict(image())
        except renet.UserError as error:
            os._exit(0 if "made in another process" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(predictor.predict(image()), expected_labels)
    predictor.close()
    with pytest.raises(renet.UserError, match="the predictor is closed"):
        predictor.predict(image())


def test_an_interrupted_wait_takes_no_other_answer(folder: Path) -> None:
    """Ctrl-C while an image is computed: the next image gets its own answer."""
    others = children_of(os.getpid())  # which a collection of garbage will end
    with renet.Predictor(folder / "deploy.prototxt", folder / "net.caffemodel") as predictor:
        (child_of_this_predictor,) = children_of(os.getpid()) - others
        os.kill(child_of_this_predictor, signal.SIGSTOP)
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            predictor.predict(image(4, 4))
        timer.join()
        assert not Path(f"/proc/{child_of_this_predictor}").exists()
        assert predictor.predict(image(6, 8)).shape == (6, 8)
