"""Text as people have it: marks, line ends, codings."""

from __future__ import annotations

from pathlib import Path

import pytest

from renet.common.errors import UserError
from renet.common.text_files import numbered_lines, read_json, read_lines, read_text


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_are_dropped(tmp_path: Path, mark: bytes, end: str) -> None:
    file = tmp_path / "list.txt"
    lines = ["p1", "", "  # held out", "grün\t ", "\t p 3", "#", "form\x0cfeed\u2028", ""]
    file.write_bytes(mark + end.join(lines).encode())
    assert read_text(file) == "\n".join(lines)
    assert read_lines(file) == ["p1", "grün", "p 3", "form\x0cfeed"]
    assert numbered_lines(file)[1:3] == [(3, "# held out"), (4, "grün")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("p1\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8"),
        ("p1\np2\n".encode("utf-16-be"), "is UTF-16BE text"),
        ("p1\np2\n".encode("utf-16-le"), "is UTF-16LE text"),
        ("p1\n".encode("utf-32"), "is UTF-32 text"),
        ("p1\r\ngrün\r\n".encode("cp1252"), "line 2: not UTF-8 text (the byte 0xfc); save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not a text file"),
        (None, "no such file"),
    ],
)
def test_other_content_is_refused_by_name(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    for read in (read_text, read_lines, read_json):
        with pytest.raises(UserError) as told:
            read(file)
        assert str(file) in str(told.value) and words in str(told.value) and "\n" not in str(told.value)


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read_text(tmp_path)


def test_json(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(b'\xef\xbb\xbf{\r\n"a": 1}')
    assert read_json(file) == {"a": 1}
    for content, words in (('{"a": 1,\n', "not JSON, or a part of it (.*line 2"), ("[" * 100_000, "nested too deeply")):
        file.write_text(content)
        with pytest.raises(UserError, match=words.replace("(", r"\(")):
            read_json(file)
