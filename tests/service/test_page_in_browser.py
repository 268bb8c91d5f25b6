"""The service's page as people meet it, in Chromium."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_helpers import WIDTHS, Tab, chromium, needs_chromium
from service_helpers import Served, encoded, expected, picture, served, write_network

pytest.importorskip("caffe", reason="pycaffe is not built")

pytestmark = needs_chromium
MILLISECONDS = 60_000
RGB = picture(30, 40)
RGB[:, :20] = (200, 60, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_network(tmp_path_factory.mktemp("page"))
    (folder / "street.png").write_bytes(encoded(RGB))
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Served]:
    with served(folder) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


class ServiceTab(Tab):
    """The service's page."""

    def __init__(self, browser: Any, service: Served, size: tuple[int, int] = (1280, 900), scheme: str = "light"):
        super().__init__(browser, size, scheme)
        self.context.set_default_timeout(MILLISECONDS)
        self.service = service
        self.page.goto(service.url)
        self.page.wait_for_selector("body[data-ready]")

    def choose(self, file: Path) -> None:
        self.page.get_by_label("Choose an image").set_input_files(file)

    def wait_for_labels(self) -> None:
        self.page.wait_for_selector("#stage.full:not(.busy)")
        self.page.get_by_text("s in the network").wait_for()

    def shares(self) -> dict[str, str]:
        rows = self.page.locator("#classes tr").all()
        return {row.locator("th").inner_text(): row.locator("td.number").inner_text() for row in rows}

    def asked(self) -> str:
        """The last prediction's address."""
        return [url for url in self.requests if "/predict?" in url][-1]


@pytest.fixture
def tab(browser: Any, service: Served) -> Iterator[ServiceTab]:
    tab = ServiceTab(browser, service)
    yield tab
    tab.context.close()
    assert not tab.complaints
    assert all(url.startswith((service.url, f"blob:{service.url}")) for url in tab.requests)


def test_an_image_gets_its_labels(tab: ServiceTab, folder: Path) -> None:
    page = tab.page
    assert page.title() == f"{folder.name}: ReNet-Caffe"
    tab.choose(folder / "street.png")
    tab.wait_for_labels()
    labels = expected(RGB).argmax(axis=0)
    counts = np.bincount(labels.ravel(), minlength=3)
    shares = tab.shares()
    for name, count in zip(("brick", "leaf", "lake"), counts, strict=True):
        assert float(shares[name].removesuffix(" %")) == pytest.approx(100 * count / labels.size, abs=0.051)
    assert list(shares.values()) == sorted(shares.values(), key=lambda text: -float(text.split()[0]))
    drawn = page.evaluate("[...document.getElementById('labels').getContext('2d').getImageData(0, 0, 40, 30).data]")
    colours = np.array([[200, 30, 30], [30, 160, 30], [30, 60, 220]])
    np.testing.assert_array_equal(np.reshape(drawn, (30, 40, 4))[:, :, :3], colours[labels])
    photograph = page.evaluate(
        "[...document.getElementById('photograph').getContext('2d').getImageData(0, 0, 40, 30).data]"
    )
    np.testing.assert_array_equal(np.reshape(photograph, (30, 40, 4))[:, :, :3], RGB)
    assert page.locator("#stage").get_attribute("aria-label").startswith("Labels of the image: ")


def test_the_slider_lies_between_image_and_labels(tab: ServiceTab, folder: Path) -> None:
    page = tab.page
    tab.choose(folder / "street.png")
    tab.wait_for_labels()
    edge = "getComputedStyle(document.getElementById('labels')).clipPath"
    assert page.evaluate(edge) == "inset(0px 0px 0px 50%)"
    page.get_by_label("How much of the image").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(edge) == "inset(0px 0px 0px 51%)"
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 5, box["y"] + 20, steps=3)
    page.mouse.up()
    assert page.evaluate(edge) == "inset(0px 0px 0px 20%)"
    page.get_by_label("Opacity").focus()
    page.keyboard.press("Home")
    assert page.locator("#labels").evaluate("element => element.style.opacity") == "0.1"


def told(tab: ServiceTab) -> list[str]:
    return tab.page.locator("#pixel tr").all_inner_texts()


def test_a_pixel_tells_its_class_and_probabilities(tab: ServiceTab, folder: Path) -> None:
    page = tab.page
    tab.choose(folder / "street.png")
    tab.wait_for_labels()
    box = page.locator("#stage").bounding_box()
    x, y = 33, 7
    page.mouse.move(box["x"] + box["width"] * (x + 0.5) / 40, box["y"] + box["height"] * (y + 0.5) / 30)
    page.get_by_text(f"column {x}, row {y}").wait_for()
    for at in ((x, y), (x + 10 - 4, y + 1)):
        likely = sorted(zip(expected(RGB)[:, at[1], at[0]], ("brick", "leaf", "lake")), reverse=True)
        assert page.locator("#pixel h3").inner_text().startswith(likely[0][1])
        for text, (share, name) in zip(told(tab), likely, strict=True):
            assert text.split()[0] == name and float(text.split()[1]) == pytest.approx(100 * share, abs=0.2)
        page.locator("#stage").focus()
        page.keyboard.press("Shift+ArrowRight")  # up to the edge, column 39
        for key in ("ArrowDown",):
            page.keyboard.press(key)
    page.get_by_text("column 39, row 9").wait_for()


def test_crf_flip_and_scales_are_asked_for(tab: ServiceTab, folder: Path) -> None:
    page = tab.page
    tab.choose(folder / "street.png")
    tab.wait_for_labels()
    assert "crf=false" in tab.asked() and "scales=1" in tab.asked() and "max_iter" not in tab.asked()
    plain = tab.shares()
    assert not page.get_by_label("Iterations").is_visible()
    with page.expect_response(lambda answer: "crf=true" in answer.url and answer.ok):
        page.get_by_label("Sharpen with a dense CRF").check()
    tab.wait_for_labels()
    assert "max_iter=2" in tab.asked() and "bi_xy_std=80" in tab.asked()
    sharp = tab.shares()
    assert sharp != plain
    page.get_by_label("Iterations").focus()
    with page.expect_response(lambda answer: "max_iter=20" in answer.url and answer.ok):
        page.keyboard.press("End")
    assert page.locator("#max_iter-value").inner_text() == "20"
    with page.expect_response(lambda answer: "flip=true" in answer.url and "scales=0.5&scales=1" in answer.url):
        page.get_by_label("0.5", exact=True).check()
        page.get_by_label("Average with the mirrored image").check()
    page.get_by_label("0.5", exact=True).uncheck()
    page.get_by_label("1", exact=True).click()  # the only one stays
    assert page.get_by_label("1", exact=True).is_checked()
    with page.expect_response(lambda answer: "crf=false&scales=1" in answer.url and answer.ok):
        page.get_by_role("button", name="Reset").click()
    tab.wait_for_labels()
    assert tab.shares() == plain


def test_examples_and_downloads(tab: ServiceTab, service: Served, tmp_path: Path) -> None:
    page = tab.page
    assert page.locator("#png").get_attribute("aria-disabled") == "true"
    page.get_by_role("button", name="Example 2").click()
    tab.wait_for_labels()
    assert "500 × 375 pixels" in page.locator("#status").inner_text()
    with page.expect_download() as download:
        page.locator("#png").click()
    download.value.save_as(tmp_path / "labels.png")
    assert download.value.suggested_filename == "example2_labels.png"
    image = service.get("/examples/2.png").content
    assert (tmp_path / "labels.png").read_bytes() == service.predict(image).content
    with page.expect_download() as download:
        page.locator("#npz").click()
    download.value.save_as(tmp_path / "example2.npz")
    assert np.load(tmp_path / "example2.npz")["probabilities"].shape == (3, 375, 500)


def test_what_goes_wrong_is_told(browser: Any, folder: Path) -> None:
    with served(folder, "--queue", 0) as service:
        check_what_goes_wrong(browser, service, folder)


def check_what_goes_wrong(browser: Any, service: Served, folder: Path) -> None:
    tab = ServiceTab(browser, service)
    page = tab.page
    (folder / "text.png").write_text("no image")
    alert = page.get_by_role("alert")
    assert not alert.is_visible()
    tab.choose(folder / "text.png")
    alert.wait_for()
    assert alert.inner_text().startswith("not an image that can be read")
    tab.choose(folder / "street.png")
    tab.wait_for_labels()
    assert not alert.is_visible()
    os.kill(service.network(), signal.SIGSTOP)
    other = ServiceTab(browser, service)
    other.choose(folder / "street.png")
    other.page.get_by_text("Predicting").wait_for()
    while service.count("renet_images_waiting") != 1:
        page.wait_for_timeout(20)
    tab.choose(folder / "street.png")
    alert.wait_for()
    assert "1 images are waiting already; try again later (asked again in " in alert.inner_text()
    os.kill(service.network(), signal.SIGCONT)
    other.wait_for_labels()
    other.context.close()
    tab.wait_for_labels()  # it has asked again by itself
    assert not alert.is_visible()
    tab.context.close()


def test_a_service_that_is_gone_is_told(browser: Any, folder: Path) -> None:
    with served(folder) as service:
        tab = ServiceTab(browser, service)
        service.process.terminate()
        service.process.wait()
        tab.choose(folder / "street.png")
        tab.page.get_by_text("The service does not answer. Is it still running?").wait_for()
        tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_and_theme(browser: Any, service: Served, tmp_path: Path, width: str, scheme: str) -> None:
    tab = ServiceTab(browser, service, WIDTHS[width], scheme)
    page = tab.page
    page.get_by_role("button", name="Example 1").click()
    tab.wait_for_labels()
    with page.expect_response(lambda answer: "crf=true" in answer.url and answer.ok):
        page.get_by_label("Sharpen with a dense CRF").check()
    tab.wait_for_labels()
    page.locator("#stage").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    ink, ground = page.evaluate(
        "['color', 'backgroundColor'].map(key => getComputedStyle(document.body)[key].match(/\\d+/g).map(Number))"
    )
    assert abs(sum(ink) - sum(ground)) > 500 and (sum(ground) < sum(ink)) == (scheme == "dark")
    page.screenshot(path=tmp_path / f"{width}_{scheme}.png", full_page=True)
    assert not tab.complaints
    tab.context.close()


def test_by_keyboard_alone_and_read_aloud(tab: ServiceTab) -> None:
    page = tab.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the result"
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if page.evaluate("document.activeElement === document.body"):
            break
    assert [name for name in reached if name in ("file", "stage", "slider", "flip", "crf", "reset")] == [
        "file",
        "stage",
        "slider",
        "flip",
        "crf",
        "reset",
    ]
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, button, a, canvas[role]')].filter(element => !element.textContent.trim()"
        " && !element.ariaLabel && !(element.labels && element.labels.length) && !element.querySelector('img[alt]'))"
        ".map(element => element.outerHTML)"
    )
    assert unnamed == []
