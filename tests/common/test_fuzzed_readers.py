"""A small share of the fuzzing of readers: see tests/fuzz_readers.py."""

from __future__ import annotations

import pytest
from fuzz_readers import READERS, fuzz_at_random, trial


@pytest.mark.parametrize("name", READERS)
def test_whatever_the_bytes_a_reader_reads_them_or_tells(name: str) -> None:
    fuzz_at_random(name, count=100, seed=0)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("regions", b"# a comment alone\n"),
        ("pickle", b"Pan id of two lines in the message\n."),
        ("cvat", b'<annotations><image name="a" width="%s" height="3"/></annotations>' % (b"9" * 30)),
    ],
)
def test_what_fuzzing_found(name: str, data: bytes) -> None:
    with trial(READERS[name]) as attempt:
        attempt(data)
