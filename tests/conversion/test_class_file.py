"""Class files as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from renet.common.errors import UserError
from renet.conversion.class_file import read_classes

SKY_AND_TREE = {
    "names": "sky\ntree\n",
    "mark and CRLF": "\ufeffsky\r\n\r\ntree\r\n",
    "spaces and tabs": "  sky\t\n\ttree  ",
    "comments": "# ours\nsky\n#\ntree\n#aha\n",
    "numbers": "0 sky\n1 tree\n",
    "numbers and colons": "0: sky\n1: tree\n",
    "numbers last": "sky 0\ntree 1\n",
    "a table": "sky,0\ntree,1\n",
    "void with a number": "0 sky\n1 tree\n255 void\n",
    "labelme's": "__ignore__\nsky\ntree\n",
}
COLOURED = {
    "hexadecimal": "sky #010203\ntree #fff\n",
    "hexadecimal first": "#010203 sky\n#ffffff\ttree\n",
    "numbers": "sky 1 2 3\ntree\t255\t255 255",
    "numbers first": "1 2 3 sky\n255 255 255 tree\n",
    "CamVid's": "1 2 3\t\tsky\n255 255 255\ttree\n",
    "a table": "name,r,g,b\nsky,1,2,3\ntree, 255, 255, 255\n",
    "labels' numbers first": "0 sky 1 2 3\n1 tree 255 255 255\n",
    "labels' numbers and colours first": "0 1 2 3 sky\n1 255 255 255 tree\n",
    "labels' numbers last": "sky #010203 0\ntree #fff 1\n",
}


@pytest.mark.parametrize("kind", SKY_AND_TREE)
def test_names(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(SKY_AND_TREE[kind].encode())
    assert read_classes(file).names == ["sky", "tree"]


@pytest.mark.parametrize("kind", COLOURED)
def test_colours(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(COLOURED[kind])
    found = read_classes(file)
    names, palette = found.names, found.palette
    assert names == ["sky", "tree"]
    assert palette.tolist() == [[1, 2, 3], [255, 255, 255]]


def test_names_may_have_spaces_commas_and_digits(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("garden   gate  #fff\nroute 66\nperson, walking\n16 wheeler\nlane 0\n0\n")
    assert read_classes(file).names == ["garden gate", "route 66", "person, walking", "16 wheeler", "lane 0", "0"]
    file.write_text("lane 0\nlane 1\n")
    assert read_classes(file).names == ["lane 0", "lane 1"]
    file.write_text("__ignore__\n_background_\ncat\n")  # labelme2voc numbers them -1 (255 in the PNG), 0 and 1
    assert read_classes(file).names == ["_background_", "cat"]


def test_classes_without_colours_get_different_ones(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(f"class {n} of all" for n in range(30)))
    palette = read_classes(file).palette
    assert len({tuple(colour) for colour in palette.tolist()}) == 30


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "names no class"),
        ("# sky\n", "names no class"),
        ("__ignore__\n", "names no class"),
        ("a\nb\na\n", "line 3: the class 'a' comes twice"),
        ("a #zzz", "line 1: #zzz is no colour"),
        ("a 1 2 256", "above 255"),
        ("1 2 256 a", "above 255"),
        ("1 2 3\n", "line 1: a colour without a name"),
        ("a\n__ignore__\n", "line 2: __ignore__"),
        ("1 sky\n2 tree\n", "line 1: the number 1 of the first class, which is label 0"),
        ("1 sky\n2 tree\n", "--map 0=255 1-2=0-1"),
        ("7 road\n8 sidewalk\n11 building\n", "--map 7=0 8=1"),
        ("\n".join(map(str, range(256))), "at most 255"),
        ("sky\n".encode("utf-16"), "is UTF-16 text"),
        (f"a {'9' * 5000} 2 3\n", "line 1: has 5,006 characters"),
        (f"a 1 2 3\n{'1' * 5000} b\n", "line 2: has 5,002 characters"),
        (f"b {'1' * 5000}\n", "line 1: has 5,002 characters"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, content: str | bytes, words: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as told:
        read_classes(file)
    assert str(file) in str(told.value) and words in str(told.value)
