"""What the service answers to a program."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import fastapi
import numpy as np
import pytest
import requests
from PIL import Image
from pycocotools import mask as coco_mask
from segmentation_helpers import CLASSES, PALETTE, call_tool, only_line, write_dataset_json
from service_helpers import SECONDS, Served, encoded, expected, picture, served, write_network

from renet.service.uploads import Limits, read_image_file

pytest.importorskip("caffe", reason="pycaffe is not built")

NPZ = "application/x-npz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Served]:
    with served(folder, "--max-bytes", 20_000, "--max-pixels", 5_000) as service:
        yield service


def read_npz(answer: requests.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == NPZ
    return dict(np.load(io.BytesIO(answer.content)))


def test_a_palette_png_of_the_body_or_of_a_form(service: Served) -> None:
    rgb = picture(12, 16)
    form = requests.post(f"{service.url}/predict", files={"image": ("a.png", encoded(rgb), "image/png")}, timeout=60)
    unnamed = service.predict(encoded(rgb), accept="*/*", kind="application/octet-stream")
    for answer in (service.predict(encoded(rgb)), form, unnamed):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        label_map = Image.open(io.BytesIO(answer.content))
        assert label_map.mode == "P" and label_map.getpalette()[:9] == np.ravel(PALETTE).tolist()
        np.testing.assert_array_equal(np.asarray(label_map), expected(rgb).argmax(axis=0))
    stages = [part.split(";")[0] for part in form.headers["server-timing"].split(", ")]
    assert stages == ["read", "decode", "queue", "network", "encode"]


def test_probabilities_and_labels_in_one_archive(service: Served) -> None:
    rgb = picture(12, 16)
    answer = service.predict(encoded(rgb), NPZ)
    found = read_npz(answer)
    np.testing.assert_allclose(found["probabilities"], expected(rgb), atol=2e-3)
    assert found["probabilities"].dtype == np.float16
    np.testing.assert_array_equal(found["labels"], expected(rgb).argmax(axis=0))
    assert found["labels.png"] == service.predict(encoded(rgb)).content


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools on NumPy 2
def test_shares_and_masks(service: Served) -> None:
    rgb = picture(12, 16)
    rgb[:, :8] = 0
    answer = service.predict(encoded(rgb), "application/json").json()
    labels = expected(rgb).argmax(axis=0)
    assert (answer["width"], answer["height"]) == (16, 12)
    shares = [entry["share"] for entry in answer["classes"]]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    assert {entry["index"] for entry in answer["classes"]} == set(np.unique(labels))
    for entry in answer["classes"]:
        mask = labels == entry["index"]
        np.testing.assert_array_equal(coco_mask.decode(entry["mask"]), mask)
        assert (entry["name"], entry["pixels"]) == (CLASSES[entry["index"]], mask.sum())


def test_the_best_of_several_kinds(service: Served) -> None:
    image = encoded(picture())
    for accept, kind in (
        ("text/html, application/json;q=0.4, image/png;q=0.1", "application/json"),
        ("image/*", "image/png"),
        ("text/html, */*;q=0.1", "image/png"),
    ):
        assert service.predict(image, accept).headers["content-type"] == kind
    for accept in ("text/html", "nonsense"):
        assert service.predict(image, accept).status_code == 406


def test_overlay(service: Served) -> None:
    answer = service.predict(encoded(picture(40, 60)), overlay=True)
    overlay = Image.open(io.BytesIO(answer.content))
    assert overlay.mode == "RGB" and overlay.width >= 60 and overlay.height > 40  # the legend is below


def test_flip_scales_and_crf(service: Served) -> None:
    rgb = picture(12, 16)
    plain = read_npz(service.predict(encoded(rgb), NPZ))["probabilities"]
    # it sees one pixel at a time, so the mirrored image says the same
    np.testing.assert_allclose(read_npz(service.predict(encoded(rgb), NPZ, flip=1))["probabilities"], plain, atol=2e-3)
    several = read_npz(service.predict(encoded(rgb), NPZ, scales=[0.5, 1]))["probabilities"]
    assert np.abs(several - plain).max() > 0.05
    np.testing.assert_allclose(several.sum(axis=0), 1, atol=5e-3)
    sharp = read_npz(service.predict(encoded(rgb), NPZ, crf=True))["probabilities"]
    sharper = read_npz(service.predict(encoded(rgb), NPZ, crf=True, max_iter=5, bi_w=20))["probabilities"]
    none = read_npz(service.predict(encoded(rgb), NPZ, crf=True, max_iter=0))["probabilities"]
    unused = read_npz(service.predict(encoded(rgb), NPZ, max_iter=5, bi_w=20))["probabilities"]
    assert np.abs(sharp - plain).max() > 0.01 and np.abs(sharper - sharp).max() > 0.01
    np.testing.assert_allclose(none, plain, atol=2e-3)
    np.testing.assert_array_equal(unused, plain)


def test_the_commands_settings_are_what_a_request_gets(folder: Path) -> None:
    rgb = picture(12, 16)
    with served(folder, "--crf", "--scales", 0.5, 1, "--flip", "--keep", folder / "kept") as service:
        defaults = service.get("/model").json()["defaults"]
        assert (defaults["crf"], defaults["scales"], defaults["flip"]) == (True, [0.5, 1.0], True)
        own = read_npz(service.predict(encoded(rgb), NPZ))["probabilities"]
        said = read_npz(service.predict(encoded(rgb), NPZ, crf=True, flip=True, scales=[0.5, 1]))["probabilities"]
        other = read_npz(service.predict(encoded(rgb), NPZ, crf=False, flip=False, scales=1))["probabilities"]
    np.testing.assert_array_equal(own, said)
    np.testing.assert_allclose(other, expected(rgb), atol=2e-3)
    kept = sorted((folder / "kept/images").iterdir())
    assert len(kept) == 3
    np.testing.assert_array_equal(np.asarray(Image.open(kept[0])), rgb)
    label_maps = sorted((folder / "kept/labels").iterdir())
    assert [file.name for file in label_maps] == [file.name for file in kept]
    np.testing.assert_array_equal(np.asarray(Image.open(label_maps[2])), expected(rgb).argmax(axis=0))


def test_exif_orientation_is_applied_and_metadata_goes(service: Served) -> None:
    rgb = picture(12, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    exif[0x010E] = "somebody's secret"
    file = encoded(rgb, exif=exif)
    assert b"secret" in file
    turned = np.rot90(rgb, -1)
    found = read_npz(service.predict(file, NPZ))
    np.testing.assert_array_equal(found["labels"], expected(turned).argmax(axis=0))
    for answer in (service.predict(file), service.predict(file, overlay=True)):
        image = Image.open(io.BytesIO(answer.content))
        assert not image.info.keys() - {"transparency"} and b"secret" not in answer.content


@pytest.mark.parametrize(
    ("body", "options", "status", "detail"),
    [
        (b"no image", {}, 422, "not an image that can be read"),
        (b"", {}, 422, "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {}, 422, "not an image that can be read"),
        (encoded(picture(60, 80))[:900], {}, 422, "the image: not an image that can be read"),
        (encoded(picture(60, 90)), {}, 422, "90 x 60 pixels; it may have 5000"),
        (encoded(picture(60, 80)), {"scales": [1, 2]}, 422, "scaled by 2 are more than 5000"),
        (bytes(20_001), {}, 413, "may have 20000 bytes"),
        (encoded(picture()), {"kind": "text/plain"}, 415, "text/plain: send the image as multipart/form-data"),
        (encoded(picture()), {"kind": "multipart/form-data"}, 400, "Missing boundary"),
        (encoded(picture()), {"bi_w": -1}, 422, "bi_w: Input should be greater than or equal to 0"),
        (encoded(picture()), {"flip": "perhaps"}, 422, "flip: Input should be a valid boolean"),
        (encoded(picture()), {"scales": [1, 5]}, 422, "scales.1: Input should be less than or equal to 4"),
        (encoded(picture()), {"scales": [1] * 9}, 422, "scales: List should have at most 8 items"),
        (encoded(picture()), {"pos_w": "nan"}, 422, "pos_w: Input should be"),
        (encoded(picture()), {"fIip": 1}, 422, "fIip: Extra inputs are not permitted"),
    ],
)
def test_what_is_refused(service: Served, body: bytes, options: dict[str, object], status: int, detail: str) -> None:
    answer = service.predict(body, **options)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), problem
    assert detail in problem["detail"] and "\n" not in problem["detail"]


def test_pixels_are_counted_before_they_are_decoded(service: Served) -> None:
    """A PNG of 60,000 x 60,000 pixels whose data are missing: only its header can have been read."""
    header = encoded(np.zeros((1, 1, 3), np.uint8))
    bomb = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]
    bomb = bomb[:29] + zlib.crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]
    answer = service.predict(bomb)
    assert (answer.status_code, "pixels" in answer.json()["detail"]) == (422, True), answer.text


def test_forms_that_are_none(service: Served) -> None:
    for files, detail in (
        ({"photo": ("a.png", encoded(picture()))}, 'no file in the field "image"'),
        ({"image": (None, "text")}, 'no file in the field "image"'),
        ([("image", ("a.png", b"1")), ("image", ("b.png", b"2"))], "Too many files"),
    ):
        answer = requests.post(f"{service.url}/predict", files=files, timeout=SECONDS)
        assert answer.status_code == 400 and detail in answer.json()["detail"], answer.text
    large = {"image": ("a.png", bytes(20_001))}
    assert requests.post(f"{service.url}/predict", files=large, timeout=SECONDS).status_code == 413
    # in chunks nobody says how long it is
    chunks = (bytes(9_000) for _ in range(5))
    unsized = requests.post(
        f"{service.url}/predict", data=chunks, headers={"Content-Type": "image/png"}, timeout=SECONDS
    )
    assert unsized.status_code == 413


def test_model_health_metrics_and_what_browsers_are_told(service: Served) -> None:
    model = service.get("/model").json()
    assert [entry["name"] for entry in model["classes"]] == CLASSES
    assert model["classes"][0]["colour"] == "#c81e1e" and model["dataset"] == "three_things"
    assert (model["network"], model["weights"], model["device"]) == ("deploy.prototxt", "net.caffemodel", "CPU")
    assert model["limits"] == {"bytes": 20_000, "pixels": 5_000, "seconds": 60.0, "queue": 16}
    assert service.get("/healthz").json()["status"] == "ok"
    before = service.count('renet_requests_total{method="POST",path="/predict",status="200"}')
    service.predict(encoded(picture()))
    assert service.count('renet_requests_total{method="POST",path="/predict",status="200"}') == before + 1
    assert service.count('renet_stage_seconds_count{stage="network"}') >= 1
    assert service.count("renet_images_waiting") == 0
    for path in ("/", "/page/page.js", "/predict", "/nowhere"):
        answer = service.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert service.get("/nowhere").status_code == 404
    wrong = service.get("/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    example = Image.open(io.BytesIO(service.get("/" + model["examples"][0]).content))
    assert example.size == (500, 375) and service.get("/examples/9.png").status_code == 404


def test_no_form_reaches_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette's own parser lays what is larger than a megabyte in a file."""

    def never(self: object) -> None:
        raise AssertionError("a file is written")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", never)
    form = requests.Request("POST", "http://x/", files={"image": ("a.png", bytes(3 << 20))}).prepare()
    assert isinstance(form.body, bytes)
    scope = {"type": "http", "headers": [(b"content-type", form.headers["Content-Type"].encode())]}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": form.body, "more_body": False}

    read = asyncio.run(read_image_file(fastapi.Request(scope, receive), Limits()))
    assert read == bytes(3 << 20)


def test_commands_that_cannot_serve(folder: Path, tmp_path: Path) -> None:
    network = ("--model", "deploy.prototxt", "--weights", "net.caffemodel")
    write_dataset_json(tmp_path, ["one"], [[1, 2, 3]])
    for arguments, message in (
        (network, "deploy.prototxt: does not say its classes; name them with --dataset"),
        ((*network, "--dataset", tmp_path / "dataset.json"), "tells 3 classes apart"),
        ((*network, "--dataset", "dataset.json", "--host", "192.0.2.1"), "cannot listen at 192.0.2.1, port 8000"),
        ((*network, "--dataset", "dataset.json", "--overlap", 3), "--overlap needs --window"),
        ((*network, "--dataset", "dataset.json", "--port", 70000), "70000 is no port"),
    ):
        assert message in only_line(call_tool("serve.py", *arguments, cwd=folder), "serve.py")


def test_a_taken_port(service: Served, folder: Path) -> None:
    network = ("--model", "deploy.prototxt", "--weights", "net.caffemodel", "--dataset", "dataset.json")
    port = service.url.rsplit(":", 1)[1]
    said = only_line(call_tool("serve.py", *network, "--port", port, cwd=folder), "serve.py")
    assert said.endswith(f"cannot listen at 127.0.0.1, port {port}: Address already in use")


def test_missing_packages_are_named(folder: Path, repository: Path) -> None:
    program = (
        "import sys, importlib.util as u, runpy; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'uvicorn' else find(name, *more)\n"
        "sys.argv[0] = 'serve.py'; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(repository / "tools/serve.py"), "--model", "deploy.prototxt"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (2, 'serve.py: needs uvicorn: pip install "renet-caffe[serve]"\n')
