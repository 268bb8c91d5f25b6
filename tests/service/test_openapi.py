"""The service against its own description: schemathesis makes requests of it, right and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from service_helpers import SECONDS, encoded, picture, served, write_network

from renet.service.uploads import IMAGE_TYPES, UNNAMED

pytest.importorskip("caffe", reason="pycaffe is not built")

OPERATIONS = {"/predict": "POST", "/model": "GET", "/healthz": "GET", "/metrics": "GET"}
IMAGES = st.builds(lambda height, width: encoded(picture(height, width)), st.integers(1, 9), st.integers(1, 9))
for kind in (*IMAGE_TYPES, UNNAMED):
    schemathesis.openapi.media_type(kind, IMAGES)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(write_network(tmp_path_factory.mktemp("openapi"))) as service:
        yield schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def test_it_is_openapi_3_1_of_all_that_is_asked(schema: Any) -> None:
    assert schema.raw_schema["openapi"].startswith("3.1")
    described = {path: [way.upper() for way in ways] for path, ways in schema.raw_schema["paths"].items()}
    assert described == {path: [way] for path, way in OPERATIONS.items()}


@pytest.mark.parametrize(
    ("path", "mode"),
    [*((path, GenerationMode.POSITIVE) for path in OPERATIONS), ("/predict", GenerationMode.NEGATIVE)],
)
def test_answers_are_those_that_are_described(schema: Any, path: str, mode: GenerationMode) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=schema[path][OPERATIONS[path]].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(timeout=SECONDS)

    check()
