"""Fixtures of the tests of ONNX files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from onnx_engines import Engines, started_engines


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """onnxruntime and OpenVINO; where pip cannot get them the test skips."""
    with started_engines(tmp_path_factory.mktemp("engines")) as started:
        yield started
