"""The service where much is asked of it, or something fails: queue, time limits, Caffe's abort, the end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from service_helpers import SECONDS, encoded, picture, served, until, write_network

pytest.importorskip("caffe", reason="pycaffe is not built")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("load"))


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as clients:
        yield clients


def statuses(answers: list[Future[requests.Response]]) -> list[int]:
    return [answer.result(SECONDS).status_code for answer in answers]


def test_a_full_queue_sends_away_and_goes_on(folder: Path, clients: ThreadPoolExecutor) -> None:
    with served(folder, "--queue", 3) as service:
        os.kill(service.network(), signal.SIGSTOP)
        waiting = [clients.submit(service.predict, encoded(picture(seed=seed))) for seed in range(4)]
        until(lambda: service.count("renet_images_waiting") == 4, "four images wait")
        refused = service.predict(encoded(picture()))
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["detail"].startswith("4 images are waiting already")
        assert service.get("/healthz").status_code == 200
        os.kill(service.network(), signal.SIGCONT)
        assert statuses(waiting) == [200] * 4
        assert service.predict(encoded(picture())).status_code == 200
        assert service.count("renet_images_waiting") == 0


def test_many_at_once_get_their_own_answers(folder: Path, clients: ThreadPoolExecutor) -> None:
    with served(folder, "--queue", 40) as service:
        images = [encoded(picture(5 + seed % 3, 7, seed)) for seed in range(30)]
        alone = [service.predict(image).content for image in images]
        together = [clients.submit(service.predict, image) for image in images]
        assert [answer.result(SECONDS).content for answer in together] == alone
        assert len(set(alone)) == len(images)


def test_images_of_one_size_that_wait_are_predicted_together(folder: Path, clients: ThreadPoolExecutor) -> None:
    sizes = [(6, 8)] * 5 + [(5, 8), (6, 8)]
    images = [encoded(picture(*size, seed)) for seed, size in enumerate(sizes)]
    for batch, passes in ((4, 4), (1, 8)):
        with served(folder, "--batch", batch, "--max-pixels", 200) as service:
            alone = [service.predict(image).content for image in images]
            before = service.count("renet_images_together_count")
            os.kill(service.network(), signal.SIGSTOP)
            first = clients.submit(service.predict, encoded(picture(3, 3)))
            until(lambda: service.count('renet_stage_seconds_count{stage="queue"}') == 8, "the first is asked for")
            waiting = [clients.submit(service.predict, image) for image in images]
            until(lambda: service.count("renet_images_waiting") == 8, "all wait")
            os.kill(service.network(), signal.SIGCONT)
            assert first.result(SECONDS).status_code == 200
            assert [answer.result(SECONDS).content for answer in waiting] == alone
            # alone, then 4 of 6 x 8 (192 of 200 pixels), 2 of them, and the one of 5 x 8
            assert service.count("renet_images_together_count") - before == passes
            assert service.count("renet_images_together_sum") == 15


def test_where_caffe_aborts_the_others_are_answered(folder: Path, clients: ThreadPoolExecutor) -> None:
    with served(folder, model="aborting", weights="aborting") as service:
        first = service.network()
        os.kill(first, signal.SIGSTOP)
        sizes = [(6, 8), (1, 1), (5, 5), (1, 1), (4, 4)]
        answers = [clients.submit(service.predict, encoded(picture(*size))) for size in sizes]
        until(lambda: service.count("renet_images_waiting") == len(sizes), "all wait")
        os.kill(first, signal.SIGCONT)
        assert statuses(answers) == [500 if size == (1, 1) else 200 for size in sizes]
        detail = answers[1].result().json()["detail"]
        assert detail.startswith("the network stopped at this image: Check failed")
        assert service.count("renet_network_restarts_total") >= 2
        assert service.network() != first and service.get("/healthz").status_code == 200


def test_what_takes_too_long_is_given_up(folder: Path) -> None:
    with served(folder, "--timeout", 1) as service:
        os.kill(service.network(), signal.SIGSTOP)
        late = service.predict(encoded(picture()))
        assert (late.status_code, late.json()["detail"]) == (504, "the network was not done in 1 seconds")
        assert service.predict(encoded(picture())).status_code == 200
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), SECONDS) as slow:
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nabc"
            )
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_network_that_is_gone_for_good_and_comes_back(folder: Path, tmp_path: Path) -> None:
    write_network(tmp_path)
    with served(tmp_path) as service:
        (tmp_path / "net.caffemodel").rename(tmp_path / "away")
        os.kill(service.network(), signal.SIGKILL)
        assert service.predict(encoded(picture())).status_code == 500
        gone = service.predict(encoded(picture()))
        assert gone.status_code == 503 and "net.caffemodel" in gone.json()["detail"]
        health = service.get("/healthz")
        assert health.status_code == 503 and health.json()["status"] == "failing"
        (tmp_path / "away").rename(tmp_path / "net.caffemodel")
        assert service.predict(encoded(picture())).status_code == 200
        assert service.get("/healthz").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_waits_be_answered(folder: Path, clients: ThreadPoolExecutor, number: int) -> None:
    with served(folder) as service:
        network = service.network()
        os.kill(network, signal.SIGSTOP)
        waiting = [clients.submit(service.predict, encoded(picture(seed=seed))) for seed in range(3)]
        until(lambda: service.count("renet_images_waiting") == 3, "three images wait")
        os.killpg(service.process.pid, number)  # as systemd and a terminal do
        host, port = service.url.removeprefix("http://").split(":")

        def refuses() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) != 0

        until(refuses, "it listens no more")
        assert not any(answer.done() for answer in waiting)
        os.kill(network, signal.SIGCONT)
        assert statuses(waiting) == [200] * 3
        assert service.process.wait(SECONDS) == 0
        assert service.process.stderr.read() == ""
        assert not Path(f"/proc/{network}").exists()


def test_memory_stays(folder: Path) -> None:
    """A thousand images of some sizes leave the server as large as the first hundred."""
    images = [encoded(picture(*size)) for size in ((60, 80), (80, 60), (33, 44), (100, 100))]
    with served(folder) as service, requests.Session() as session:

        def ask(count: int) -> None:
            for number in range(count):
                kind = ("image/png", "application/json", "application/x-npz")[number % 3]
                headers = {"Content-Type": "image/png", "Accept": kind}
                answer = session.post(f"{service.url}/predict", data=images[number % 4], headers=headers)
                assert answer.status_code == 200

        def sizes() -> np.ndarray:
            pages = [
                int(Path(f"/proc/{process}/statm").read_text().split()[1])
                for process in (service.process.pid, service.network())
            ]
            return np.array(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

        ask(100)
        before = sizes()
        ask(900)
        assert (sizes() - before < 8).all(), (before, sizes())
