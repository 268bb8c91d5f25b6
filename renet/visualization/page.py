"""Report page on trained networks side by side."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.data.catalog import find_dataset
from renet.data.dataset import Dataset
from renet.evaluation.bootstrap import plain
from renet.evaluation.paper_results import PaperResults, paper_results
from renet.training.run_record import RunRecord
from renet.visualization.curves import boundary_curves, learning_rate_curves, loss_curves, score_curves
from renet.visualization.network_drawing import draw_network
from renet.visualization.page_content import (
    ClassGroup,
    Entry,
    Source,
    class_groups,
    confusion_tables,
    description_lines,
    gather,
)
from renet.visualization.page_pictures import (
    BUDGET,
    Picture,
    check_is_ours,
    draw_gallery,
    megabytes,
    picture_folder,
    remove_beside,
    write_beside,
)

TEMPLATES = Path(__file__).with_name("templates")
DRAWN = "deploy.prototxt"


def render(
    entries: Sequence[Entry],
    split: Path | None,
    dataset: Dataset | None,
    gallery: Sequence[Picture] = (),
    title: str | None = None,
    folder: Path | None = None,
) -> str:
    """Render the page as HTML.

    Args:
        entries: what it reports on; one column each.
        split: the prepared test split; None where none was named.
        dataset: classes and colours; None leaves the classes' table out where no run was scored.
        gallery: the pictures shown.
        title: heading; None makes one.
        folder: where the pictures lie beside the page; None puts them into it.

    Raises:
        UserError: scores of different classes cannot stand side by side.
    """
    scored = [entry for entry in entries if entry.evaluation is not None]
    if dataset is None:
        dataset = _dataset_of_scores(scored)
    for entry in scored:
        assert entry.evaluation is not None and dataset is not None, "scored entries have classes"
        if entry.evaluation.classes != dataset.classes:
            raise UserError(f"{entry.name}: its scores are of other classes than those of {dataset.name}")
    paper = paper_results(dataset.name) if dataset is not None else None
    groups = class_groups(scored, dataset, paper.class_iou if paper else {}) if dataset and scored else []
    shown = [entry for entry in entries if entry.predictions is not None]
    intervals = {entry.name: entry.evaluation.intervals() for entry in scored if entry.evaluation}
    along = [(e.name, e.evaluation.boundaries) for e in scored if e.evaluation and e.evaluation.boundaries]
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        title=title or " and ".join(entry.name for entry in entries),
        subtitle=_subtitle(entries, dataset, split),
        scored=scored,
        shown=shown,
        cards=_cards(scored, groups, paper) if scored else [],
        intervals=intervals,
        boundaries=boundary_curves([(name, boundaries, intervals[name]) for name, boundaries in along]),
        trimap_intervals=any("trimap_mean_iou" in intervals[name] for name, _ in along),
        boundary_f=[(name, plain(boundaries.scores()["boundary_f"])) for name, boundaries in along],
        paper=paper,
        groups=groups,
        columns=1 + len(scored) + (len(scored) == 2) + bool(paper and paper.class_iou),
        absent=_absent(scored),
        confusions=confusion_tables(scored, dataset) if dataset and scored else [],
        curves=_curves(entries),
        pictures=gallery,
        folder=folder,
        address=lambda file: file.uri if folder is None else f"{quote(folder.name)}/{file.name}",
        image_scores=_image_scores(gallery),
        total=len(shown[0].images) if shown else 0,
        classes=dataset.classes if dataset else (),
        legend=[row for group in groups for row in group.rows],
        runs=[_run(entry.run) for entry in entries if entry.run is not None],
        measured_on=lambda entry: _measured_on(entry, split),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def write_page(
    out: Path,
    sources: Sequence[Source],
    split: Path | None,
    dataset_name: str | None = None,
    *,
    most_images: int | None = None,
    budget: float = BUDGET,
    title: str | None = None,
    boundary_tolerance: float | None = None,
) -> Path | None:
    """Write the page to `out`, and its pictures beside it where they are more than it may hold.

    Args:
        out: the page's file.
        sources: its columns.
        split: the prepared test split, for truth and images.
        dataset_name: a known dataset, or a dataset.json; None: the split's own.
        most_images: at most so many are shown; None: all.
        budget: megabytes of pictures inside the page itself.
        title: heading; None makes one.
        boundary_tolerance: show scores along boundaries, too, with this tolerance (see `evaluate_images`).

    Returns:
        The pictures' folder; None where the page holds them itself.

    Raises:
        UserError: bad input, named.
    """
    folder = picture_folder(out)
    check_is_ours(folder)
    dataset = None
    if split is not None or dataset_name is not None:
        dataset = find_dataset(dataset_name, split)
    entries = gather(sources, split, dataset, boundary_tolerance)
    gallery = [] if split is None or dataset is None else draw_gallery(entries, split, dataset, most_images)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = folder if megabytes(gallery) > budget else None
    page = render(entries, split, dataset, gallery, title, beside)
    if beside is not None:
        write_beside(out, gallery)
    write_atomically(out, page.encode())
    if beside is None:
        remove_beside(out)
    return beside


def _image_scores(gallery: Sequence[Picture]) -> dict[int, dict[str, Any]]:
    """What the page sorts and filters by, for each image by its number in the split."""
    return {
        picture.position: {
            "accuracy": [None if value is None else round(value, 6) for value in picture.accuracies],
            "classes": {c: [round(iou, 4) for iou in ious] for c, ious in picture.class_ious.items()},
        }
        for picture in gallery
    }


def _run(run: RunRecord) -> dict[str, Any]:
    drawing, undrawn = None, ""
    if DRAWN in run.sources:
        try:
            drawing = draw_network(run.sources[DRAWN], run.name)
        except UserError as error:
            undrawn = str(error)
    metadata = description_lines(run)
    return {"name": run.name, "metadata": metadata, "sources": run.sources, "drawing": drawing, "undrawn": undrawn}


def _dataset_of_scores(scored: Sequence[Entry]) -> Dataset | None:
    """Class names from the scores alone, in neutral colours, where neither dataset nor split was named."""
    import numpy as np

    if not scored or scored[0].evaluation is None:
        return None
    classes = scored[0].evaluation.classes
    grey = np.full((len(classes), 3), 128, np.uint8)
    return Dataset("the test split", classes, grey, (0.0, 0.0, 0.0), 255, {}, Path())


def _subtitle(entries: Sequence[Entry], dataset: Dataset | None, split: Path | None) -> str:
    parts = ["Semantic segmentation"]
    if dataset is not None:
        parts.append(f"{dataset.name}, {len(dataset.classes)} classes")
    if split is not None and dataset is not None:
        parts.append(f"test split {_split_name(split, dataset)}")
    trained = [entry.run.training[-1]["iteration"] for entry in entries if entry.run and entry.run.training]
    if trained:
        parts.append(" and ".join(f"{iteration:,}" for iteration in trained) + " iterations")
    return " · ".join(parts)


def _split_name(split: Path, dataset: Dataset) -> str:
    try:
        return split.resolve().relative_to(dataset.folder.resolve()).as_posix()
    except ValueError:
        return split.name


def _measured_on(entry: Entry, split: Path | None) -> str:
    assert entry.evaluation is not None, "only scored entries are in the table"
    return f"{entry.evaluation.images} images" + (
        f" of {split.parent.name}/{split.name}" if split and entry.images else ""
    )


def _cards(scored: Sequence[Entry], groups: Sequence[ClassGroup], paper: PaperResults | None) -> list[dict[str, Any]]:
    """The figures at the head of the page, each with the paper's own."""
    cards: list[dict[str, Any]] = []
    for key, title in (
        ("pixel_accuracy", "Pixel accuracy"),
        ("class_accuracy", "Class accuracy"),
        ("mean_iou", "Mean IoU"),
        ("frequency_weighted_iou", "Frequency-weighted IoU"),
    ):
        published = [
            (row.name, f"{getattr(row, key):g}")
            for row in (paper.rows if paper else ())
            if row.headline and getattr(row, key, None) is not None
        ]
        values = [getattr(entry.evaluation.scores, key) for entry in scored if entry.evaluation]
        cards.append({"title": title, "values": values, "published": published, "highlight": False})
    for group in groups:
        if group.highlighted and group.mean:
            title = "Mean IoU where distant context decides"
            cards.insert(0, {"title": title, "values": group.mean.ious, "published": [], "highlight": True})
    return cards


def _absent(scored: Sequence[Entry]) -> list[str]:
    """For each entry that lacks classes, which they are."""
    texts = []
    for entry in scored:
        assert entry.evaluation is not None
        missing = [c for c, iou in zip(entry.evaluation.classes, entry.evaluation.scores.iou) if iou is None]
        if missing:
            names = ", ".join(missing)
            texts.append(f"{entry.name}: {names}" if len(scored) > 1 else names)
    return texts


def _curves(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    runs = [entry.run for entry in entries if entry.run is not None]
    candidates = (
        (loss_curves(runs), "Loss while training (running mean over a fiftieth of it), and on the test split.", False),
        (learning_rate_curves(runs), "Learning rate.", False),
        (score_curves(runs), "Scores on the test split while training.", True),
    )
    return [{"svg": svg, "caption": caption, "wide": wide} for svg, caption, wide in candidates if svg is not None]
