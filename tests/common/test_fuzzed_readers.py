"""A small share of the fuzzing of readers: see tests/fuzz_readers.py."""

from __future__ import annotations

import pytest
from fuzz_readers import READERS, fuzz_at_random


@pytest.mark.parametrize("name", READERS)
def test_whatever_the_bytes_a_reader_reads_them_or_tells(name: str) -> None:
    fuzz_at_random(name, count=100, seed=0)
