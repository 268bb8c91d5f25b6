"""The report page as its reader meets it: opened from a file in Chromium, sorted, filtered, compared, read aloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_helpers import WIDTHS, Tab, chromium, needs_chromium
from segmentation_helpers import call_tool, save_labels, write_dataset_json, write_split

pytestmark = needs_chromium
IMAGES = 12
# image number -> the classes in its truth; "good" labels image n wrongly in its first n columns, "bad" in its first 2n
TRUTHS = {number: ((0, 1), (1, 2), (0, 2))[number % 3] for number in range(IMAGES)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split and two folders of predictions, and pages of them: one file, and one with its pictures beside it."""
    folder = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(3)
    samples = {}
    for number, (upper, lower) in TRUTHS.items():
        truth = np.full((30, 40), lower, np.uint8)
        truth[:15] = upper
        truth[0, 39] = 255
        samples[f"image{number:02}"] = (rng.integers(0, 256, (30, 40, 3)).astype(np.uint8), truth)
        for name, columns in (("good", number), ("bad", 2 * number)):
            labels = np.where(truth == 255, upper, truth)
            labels[:, :columns] = ({0, 1, 2} - {upper, lower}).pop()
            save_labels(folder / name / f"image{number:02}.png", labels)
    write_split(folder / "data/test", samples)
    write_dataset_json(folder / "data")
    arguments = ("--predictions", "good", "--predictions", "bad", "--labels", "data/test")
    for page, budget in (("page.html", 25), ("beside.html", 0)):
        result = call_tool("report.py", *arguments, "--budget", budget, "--out", page, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


class ReportTab(Tab):
    """A report opened from its file."""

    def __init__(self, browser: Any, file: Path, size: tuple[int, int] = (1280, 900), scheme: str = "light") -> None:
        super().__init__(browser, size, scheme, offline=True)
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url[:100]}"))
        self.page.goto(file.as_uri())

    def ids(self) -> list[str]:
        """Of the images shown, in order."""
        return self.page.locator(".gallery > li:not([hidden]) h3").all_text_contents()


@pytest.fixture
def tab(browser: Any, folder: Path) -> Iterator[ReportTab]:
    tab = ReportTab(browser, folder / "page.html")
    yield tab
    assert not tab.complaints
    assert all(url.startswith(("file://", "data:")) for url in tab.requests)
    tab.close()


def by_number(numbers: Any) -> list[str]:
    return [f"image{number:02}" for number in numbers]


def test_worst_and_best_first(tab: ReportTab) -> None:
    assert tab.ids() == by_number(reversed(range(IMAGES)))
    tab.page.get_by_label("Order").select_option("best of bad first")
    assert tab.ids() == by_number(range(IMAGES))
    tab.page.get_by_label("Order").select_option("greatest lead of good first")
    assert tab.ids() == by_number(reversed(range(IMAGES)))
    tab.page.get_by_label("Order").select_option("as in the test split")
    assert tab.ids() == by_number(range(IMAGES))


def test_filtered_by_class_and_then_sorted_by_its_iou(tab: ReportTab) -> None:
    tab.page.get_by_label("Images with").select_option("lake")
    expected = [number for number in range(IMAGES) if 2 in TRUTHS[number]]
    assert tab.ids() == by_number(reversed(expected))
    assert tab.page.locator("#count").inner_text() == "8 of 12 images, by IoU of lake"
    tab.page.get_by_label("Images with").select_option("any class")
    assert len(tab.ids()) == IMAGES


def test_slider_between_truth_and_prediction(tab: ReportTab) -> None:
    page = tab.page
    page.get_by_role("button", name="Compare the pictures of image11 with a slider").click()
    over = page.locator(".stage .over")
    assert over.get_attribute("alt").startswith("Labels of image11 predicted by good")
    edge = "element => getComputedStyle(element).clipPath"
    assert over.evaluate(edge) == "inset(0px 0px 0px 50%)"
    page.keyboard.press("ArrowRight")  # the slider has the focus
    assert over.evaluate(edge) == "inset(0px 0px 0px 51%)"
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 5, box["y"] + 10, steps=4)
    page.mouse.up()
    assert over.evaluate(edge) == "inset(0px 0px 0px 20%)"
    assert page.get_by_role("slider").input_value() == "20"
    page.get_by_label("Right").select_option("errors of bad")
    assert "url(" in page.locator(".stage .over").evaluate("element => element.style.backgroundImage")
    page.get_by_role("button", name="Next").click()
    assert page.locator("#compared").inner_text() == "image10"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_a_click_on_a_prediction_compares_that_one(tab: ReportTab) -> None:
    tab.page.locator(".gallery > li").first.get_by_alt_text("predicted by bad").click()
    assert tab.page.locator("#right").evaluate("element => element.selectedOptions[0].text") == "bad"


def test_by_keyboard_alone(tab: ReportTab) -> None:
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Skip to the scores"
    for _ in range(40):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement.className") == "compare":
            break
    tab.page.keyboard.press("Enter")
    assert tab.page.locator("dialog").is_visible()
    tab.page.keyboard.press("End")
    assert tab.page.get_by_role("slider").input_value() == "100"
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate("document.activeElement.className") == "compare"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["page.html", "beside.html"])
def test_every_width_and_theme(browser: Any, folder: Path, width: str, scheme: str, name: str) -> None:
    tab = ReportTab(browser, folder / name, WIDTHS[width], scheme)
    page = tab.page
    for item in page.locator(".gallery > li").all():
        item.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    ink, ground = page.evaluate(
        "['color', 'backgroundColor'].map(key => getComputedStyle(document.body)[key].match(/\\d+/g).map(Number))"
    )
    assert abs(sum(ink) - sum(ground)) > 500 and (sum(ground) < sum(ink)) == (scheme == "dark")
    page.locator(".compare").first.click()
    assert page.locator("dialog").bounding_box()["width"] <= WIDTHS[width][0]
    assert not tab.complaints
    beside = (folder / "beside_files").as_uri()
    own = (folder / name).as_uri()
    assert all(url == own or url.startswith(("data:", beside)) for url in tab.requests)
    tab.close()


def test_printed_without_controls(tab: ReportTab) -> None:
    tab.page.emulate_media(media="print")
    assert not tab.page.locator(".controls").is_visible() and not tab.page.locator(".compare").first.is_visible()
    assert len(tab.page.pdf()) > 10_000


def test_read_without_scripts(browser: Any, folder: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "page.html").as_uri())
    assert page.locator(".gallery > li").count() == IMAGES
    assert not page.locator(".compare").first.is_visible() and not page.locator("dialog").is_visible()
    context.close()


ATTACKS = (
    "<script>attacked()</script>",
    "<img src=x onerror=attacked()>",
    '"><svg onload=attacked()>',
    "</script><script>attacked()</script>",
    "</style><script>attacked()</script>",
    "{{ 7 * 7 }}",
    "javascript:attacked()",
)


def test_hostile_names_run_nothing(browser: Any, tmp_path: Path) -> None:
    """Of classes, images, predictions, a run and its files."""
    attack = " ".join(ATTACKS)
    pixels, truth = np.full((30, 40, 3), 90, np.uint8), np.zeros((30, 40), np.uint8)
    images = [each.replace("/", "|") for each in ATTACKS]  # as files are named by them
    write_split(tmp_path / "data/test", {image: (pixels, truth + number) for number, image in enumerate(images)})
    write_dataset_json(tmp_path / "data", list(ATTACKS), [[n, n, n] for n in range(len(ATTACKS))], name=attack)
    run = tmp_path / "run"
    for image in images:
        save_labels(run / f"predictions/{image}.png", truth)
    metadata = {"name": attack, "command": attack, "versions": {attack: attack}, "message": attack}
    (run / "run.json").write_text(json.dumps(metadata))
    (run / "metrics.jsonl").write_text(json.dumps({"kind": "train", "iteration": 1, "loss": 1.0}) + "\n")
    (run / f"{images[0]}.prototxt").write_text(attack)
    (run / "deploy.prototxt").write_text(f"name: {json.dumps(attack)}")
    (tmp_path / "more").symlink_to(run / "predictions")
    for budget in (25, 0):
        page = tmp_path / f"page{budget}.html"
        words = ("--run", "run", "--predictions", "more", "--labels", "data/test", "--title", attack)
        done = call_tool("report.py", *words, "--budget", budget, "--out", page, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        tab = ReportTab(browser, page)
        assert tab.page.evaluate("document.documentElement.classList.contains('scripted')"), "our own script runs"
        assert tab.page.title() == attack
        assert tab.page.evaluate("document.scripts.length") == 2
        assert tab.complaints == []
        assert all(request.startswith(("file:", "data:")) for request in tab.requests)
        tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x: onerror=document.title=1>')")
        tab.page.evaluate("document.body.append(document.createElement('script'))")
        tab.page.evaluate("document.body.lastChild.textContent = 'document.title = 2'")
        assert tab.page.title() == attack, "the page's policy lets nothing else run"
        assert any("Content Security Policy" in complaint for complaint in tab.complaints)
        tab.context.close()
