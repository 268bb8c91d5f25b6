"""Scores in parts: joined, they are those of one evaluation to the last bit; what does not belong together is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from segmentation_helpers import CLASSES, call_tool, only_line, save_labels, write_dataset_json, write_split

from renet.common.errors import UserError
from renet.common.parts import Part
from renet.evaluation.score_parts import Subject, folder_of, ids_sha256, join_parts, write_part
from renet.evaluation.scores import Evaluation, ImageResult, Tally

COUNT, PARTS = 23, 7
TOLERANCE, SHARES = 0.02, (0.05, 0.2)


def results(asked: tuple[float | None, tuple[float, ...] | None], seed: int = 0) -> list[ImageResult]:
    """Images with few classes each, so that a part lacks some; one part has nothing but unlabelled pixels."""
    found = []
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        truth = np.repeat(np.repeat(rng.choice([number % 3, (number + 1) % 3, 255], (5, 4)), 6, 0), 5, 1)
        if 6 <= number < 9:
            truth[:] = 255
        rng = np.random.default_rng((seed, number))  # so the truth is the same for any seed
        predicted = np.where(rng.random(truth.shape) < 0.7, truth % 3, rng.integers(0, 3, truth.shape))
        maps = (truth.astype(np.uint8), predicted.astype(np.uint8))
        found.append(ImageResult.of(f"image {number}", Path(), maps, 3, 255, *asked))
    return found


def subject(asked: tuple[float | None, tuple[float, ...] | None], ids: list[str]) -> Subject:
    tolerance, shares = asked
    return Subject(
        "three_things", CLASSES, len(ids), ids_sha256(ids), "abc", ["m", "w", {"scales": [1.0]}], tolerance,
        None if shares is None else list(shares),
    )  # fmt: skip


def write_parts(scores: Path, asked: tuple[float | None, tuple[float, ...] | None], count: int = PARTS) -> Subject:
    images = results(asked)
    of = subject(asked, [image.image_id for image in images])
    for number in range(count, 0, -1):
        part = Part(number, count)
        write_part(scores, part, of, Tally.of(part.share(images), 3))
    return of


@pytest.mark.parametrize("count", [1, 7, 30])
@pytest.mark.parametrize("asked", [(None, None), (TOLERANCE, None), (None, SHARES), (TOLERANCE, SHARES)])
def test_parts_come_to_the_whole_bit_for_bit(tmp_path: Path, asked: tuple, count: int) -> None:
    whole = Evaluation.of(results(asked), CLASSES)
    write_parts(tmp_path / "scores.json", asked, count)
    joined, name = join_parts(tmp_path / "scores.json")
    assert name == "three_things"
    assert json.dumps(joined.as_json(with_images=True)) == json.dumps(whole.as_json(with_images=True))
    assert (joined.boundaries is None, joined.sizes is None) == (asked[0] is None, asked[1] is None)
    other = Evaluation.of(results(asked, seed=1), CLASSES)
    mine, theirs = joined.intervals(200, 5), whole.intervals(200, 5)
    assert mine.keys() == theirs.keys()
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)
    found = [each.compared_with(other, 200, 5) for each in (joined, whole)]
    assert [repr(each) for each in found[0].values()] == [repr(each) for each in found[1].values()]


def missing(folder: Path, _: Subject) -> None:
    (folder / "3_of_7.npz").unlink()


def cut_off(folder: Path, _: Subject) -> None:
    file = folder / "3_of_7.npz"
    file.write_bytes(file.read_bytes()[:-200])


def something_else(folder: Path, _: Subject) -> None:
    np.savez(folder / "3_of_7.npz", probabilities=np.zeros(3))


def pickled(folder: Path, _: Subject) -> None:
    np.savez(folder / "3_of_7.npz", header=np.array([{}], dtype=object))


def twice(folder: Path, _: Subject) -> None:
    shutil.copy(folder / "2_of_7.npz", folder / "3_of_7.npz")


def of_others(**differing: object) -> Callable[[Path, Subject], None]:
    def spoil(folder: Path, of: Subject) -> None:
        asked = (of.boundary_tolerance, None)
        part = Part(3, PARTS)
        write_part(folder.with_suffix(".json"), part, replace(of, **differing), Tally.of(part.share(results(asked)), 3))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing, r"3_of_7.npz: missing; make it with --part 3/7"),
        (cut_off, r"3_of_7.npz: not a part of scores of evaluate.py, or damaged .*; score it anew"),
        (something_else, r"3_of_7.npz: not a part of scores"),
        (pickled, r"3_of_7.npz: not a part of scores"),
        (twice, "the parts are not shares of one list of images; score them anew"),
        (of_others(dataset="voc2012"), r"3_of_7.npz: is of something else than 1_of_7.npz: dataset differs"),
        (of_others(predictions=["other"]), "predictions differs"),
        (of_others(labels_sha256="other"), "labels sha256 differs"),
        (of_others(images=24), "images differs"),
        (of_others(boundary_tolerance=0.5), "boundary tolerance differs"),
    ],
)
def test_what_does_not_belong_together_is_named(
    tmp_path: Path, spoil: Callable[[Path, Subject], None], words: str
) -> None:
    of = write_parts(tmp_path / "scores.json", (TOLERANCE, None))
    spoil(folder_of(tmp_path / "scores.json"), of)
    with pytest.raises(UserError, match=words):
        join_parts(tmp_path / "scores.json")


def test_nothing_labelled_in_any_part(tmp_path: Path) -> None:
    images = results((None, None))[6:9]
    of = subject((None, None), [image.image_id for image in images])
    for number in (1, 2):
        write_part(tmp_path / "x.json", Part(number, 2), of, Tally.of(Part(number, 2).share(images), 3))
    with pytest.raises(UserError, match=r"x.parts: no labelled pixel in the truth"):
        join_parts(tmp_path / "x.json")


def test_the_commands(tmp_path: Path) -> None:
    samples = {}
    for number in range(5):
        rng = np.random.default_rng(number)
        truth = rng.choice([0, 1, 2, 255], (9, 8)).astype(np.uint8)
        for folder, right in (("one", 0.9), ("other", 0.6)):
            guess = np.where(rng.random(truth.shape) < right, truth % 3, 0)
            save_labels(tmp_path / folder / f"p{number}.png", guess)
        samples[f"p{number}"] = (np.zeros((9, 8, 3), np.uint8), truth)
    write_split(tmp_path / "data/test", samples)
    write_dataset_json(tmp_path / "data")

    def evaluate(name: str, *more: object):
        options = ["--labels", "data/test", "--dataset", "data", "--by-size", "--boundaries", "--resamples", 100]
        return call_tool("evaluate.py", "--predictions", name, *options, *more, cwd=tmp_path)

    whole = evaluate("one", "--json", "whole.json", "--compare", "other")
    assert whole.returncode == 0, whole.stderr
    for name in ("one", "other"):
        for number in (2, 3, 1):
            done = evaluate(name, "--json", f"scores/{name}.json", "--part", f"{number}/3")
            assert done.returncode == 0, done.stderr
            assert f"scores/{name}.parts/{number}_of_3.npz" in done.stdout
    merge = ["scores", "scores/one.json", "--compare", "scores/other.json", "--resamples", 100]
    done = call_tool("merge.py", *merge, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == whole.stdout.replace("other: other;", "other: scores/other.json;")
    told = (tmp_path / "whole.json").read_text().replace('"other": "other"', '"other": "scores/other.json"')
    assert (tmp_path / "scores/one.json").read_text() == told
    (tmp_path / "scores/one.parts/2_of_3.npz").unlink()
    said = only_line(call_tool("merge.py", *merge, cwd=tmp_path), "merge.py")
    assert said == "merge.py: scores/one.parts/2_of_3.npz: missing; make it with --part 2/3"
    said = only_line(evaluate("one", "--part", "1/2"), "evaluate.py")
    assert said.startswith("evaluate.py: --part needs --json: ")
    said = only_line(evaluate("one", "--part", "1/2", "--json", "x.json", "--compare", "other"), "evaluate.py")
    assert said == "evaluate.py: --part does not go with --compare: merge.py compares"
