"""The service: what is asked over HTTP, and what is answered."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from renet.common.files import file_sha256, write_atomically
from renet.common.repository import version
from renet.conversion.synthetic_scenes import Coins, draw
from renet.data.dataset import Dataset
from renet.data.images import encode_png
from renet.data.label_maps import write_label_map
from renet.prediction.computation import Prediction, Setup
from renet.prediction.computation import Request as Image
from renet.prediction.crf_parameters import CrfParameters
from renet.service.answers import JSON, NPZ, PNG, Answer, ClassEntry, Labels, class_entries, kind_of
from renet.service.metrics import MEDIA_TYPE, Metrics
from renet.service.network import Network
from renet.service.parameters import Parameters, defaults_of
from renet.service.uploads import FIELD, FORM, IMAGE_TYPES, UNNAMED, Limits, decode, read_image_file

PAGE = Path(__file__).with_name("page")
PROBLEM = "application/problem+json"
EXAMPLES = {1: Coins(sea=True, houses=True), 2: Coins(sea=False, houses=False), 3: Coins(sea=True, houses=False)}
EXAMPLE_SIZE = (375, 500)
_SEED = 7  # of the examples
_CODEC_THREADS = 4
_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}

_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Service:
    """What is served.

    Attributes:
        name: of the model.
        setup: of the network, with its dataset; its settings are what a request gets that says nothing.
        crf: parameters of the CRF, where a request says nothing of them.
        limits: of images.
        queue: how many images may wait.
        together: how many of one size may be predicted at once.
        keep: folder into which images and labels are written; None keeps nothing.
    """

    name: str
    setup: Setup
    crf: CrfParameters
    limits: Limits = field(default_factory=Limits)
    queue: int = 16
    together: int = 4
    keep: Path | None = None

    @property
    def dataset(self) -> Dataset:
        """Names and colours of the classes."""
        assert self.setup.network.dataset is not None, "a service has a dataset"
        return self.setup.network.dataset


class Problem(BaseModel):
    """Why there is no other answer (RFC 9457)."""

    title: str
    status: int
    detail: str


class LimitsTold(BaseModel):
    """What is too much."""

    bytes: int
    pixels: int
    seconds: float
    queue: int


class Model(BaseModel):
    """What is served."""

    name: str
    version: str = Field(description="Of ReNet-Caffe.")
    network: str
    weights: str
    weights_sha256: str
    device: str
    dataset: str
    classes: list[ClassEntry]
    defaults: dict[str, Any] = Field(description="Values of the parameters that a request leaves out.")
    limits: LimitsTold
    keeps: bool = Field(description="Whether images and their labels are kept.")
    examples: list[str] = Field(description="Addresses of the page's example images.")


class Health(BaseModel):
    """Whether images are predicted."""

    status: str
    detail: str | None = None


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses of OpenAPI that tell a problem."""
    schema = Problem.model_json_schema()
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM: {"schema": schema}}}
        for status in statuses
    }


_BINARY = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "description": f"An image file: as the body, or in the field {FIELD} of a form.",
        "content": {
            **{kind: {"schema": {}} for kind in (*IMAGE_TYPES, UNNAMED)},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "contentMediaType": UNNAMED}},
                }
            },
        },
    }
}


def make_app(service: Service, network: Network, metrics: Metrics) -> _App:
    """Make the application.

    Args:
        service: what is served.
        network: that predicts; the caller closes it.
        metrics: that the network counts in, too.
    """
    app = FastAPI(
        title="ReNet-Caffe",
        version=version(),
        summary="Semantic segmentation of images by a trained network.",
        license_info={"name": "BSD-2-Clause", "identifier": "BSD-2-Clause"},
        docs_url=None,
        redoc_url=None,
    )
    codecs = ThreadPoolExecutor(_CODEC_THREADS)
    model = _model(service)

    @app.post(
        "/predict",
        summary="Predict an image",
        response_class=Response,
        responses={
            200: {
                "description": "A palette PNG of class indices (or the overlay); JSON with the classes' shares and "
                "run-length masks; or a NumPy archive with the arrays probabilities (classes x height x width, "
                "float16) and labels, and labels.png beside them. Server-Timing tells the stages.",
                "content": {
                    PNG: {"schema": _BINARY},
                    JSON: {"schema": Labels.model_json_schema(ref_template="#/components/schemas/{model}")},
                    NPZ: {"schema": _BINARY},
                },
            },
            **_problems(400, 406, 408, 413, 415, 422, 429, 500, 503, 504),
        },
        openapi_extra=_BODY,
    )
    async def predict(request: Request, parameters: Annotated[Parameters, Query()]) -> Response:
        kind = kind_of(request.headers.get("accept", "*/*"))
        settings = parameters.settings(service.setup.settings, service.crf)
        timing: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        with network.place():
            with metrics.stage("read", timing.__setitem__):
                file = await read_image_file(request, service.limits)
            with metrics.stage("decode", timing.__setitem__):
                scale = settings.image_scale * max(settings.scales)
                image = await loop.run_in_executor(codecs, decode, file, service.limits, scale)
            del file
            wants = Image(image, "the image", "BGR", kind == NPZ, settings)
            found = await network.predict(wants, request.is_disconnected, timing.__setitem__)
        with metrics.stage("encode", timing.__setitem__):
            labels, probabilities = found if isinstance(found, Prediction) else (found, None)
            answer = Answer(image, labels, probabilities, service.dataset, parameters.overlay)
            body = await loop.run_in_executor(codecs, answer.encoded, kind)
            if service.keep is not None:
                await loop.run_in_executor(codecs, _keep, service.keep, answer)
        told = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in timing.items())
        headers = {"Server-Timing": told, "Cache-Control": "no-store", "Vary": "Accept"}
        return Response(body, media_type=kind, headers=headers)

    @app.get("/model", summary="Tell what is served")
    def describe() -> Model:
        return model

    @app.get("/healthz", summary="Tell whether images are predicted", responses={503: {"model": Health}})
    def health(response: Response) -> Health:
        if network.fault is None:
            return Health(status="ok")
        response.status_code = 503
        return Health(status="failing", detail=network.fault)

    @app.get(
        "/metrics",
        summary="Count requests, seconds and images for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def count() -> Response:
        return Response(metrics.text(), media_type=MEDIA_TYPE)

    @app.get("/examples/{number}.png", include_in_schema=False)
    def example(number: int) -> Response:
        if number not in EXAMPLES:
            raise HTTPException(404, f"there are examples 1 to {len(EXAMPLES)}")
        return Response(_example(number), media_type=PNG, headers={"Cache-Control": "max-age=86400"})

    @app.exception_handler(StarletteHTTPException)
    def tell(_: Request, error: StarletteHTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    def refuse(_: Request, error: RequestValidationError) -> Response:
        faults = (f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
        return _problem(422, "; ".join(faults))

    @app.exception_handler(Exception)
    def fail(_: Request, error: Exception) -> Response:
        return _problem(500, "a fault of the service, which its log tells")

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE))
    return _Frame(app, metrics)


class _Frame:
    """Application within another that counts the answers and adds what all of them say to a browser."""

    def __init__(self, app: _App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: _Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_on(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS.items()]
                path = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(scope["method"], path, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, send_on)


def _problem(status: int, detail: str, headers: Any = None) -> Response:
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return Response(problem.model_dump_json(), status, headers, PROBLEM)


def _model(service: Service) -> Model:
    network = service.setup.network
    return Model(
        name=service.name,
        version=version(),
        network=network.deploy.name,
        weights=network.weights.name,
        weights_sha256=file_sha256(network.weights),
        device="CPU" if service.setup.gpu is None else f"GPU {service.setup.gpu}",
        dataset=service.dataset.name,
        classes=class_entries(service.dataset),
        defaults=defaults_of(service.setup.settings, service.crf),
        keeps=service.keep is not None,
        limits=LimitsTold(**vars(service.limits), queue=service.queue),
        examples=[f"examples/{number}.png" for number in EXAMPLES],
    )


@cache
def _example(number: int) -> bytes:
    return encode_png(draw(_SEED, 1, number, EXAMPLE_SIZE, EXAMPLES[number]).image)


def _keep(folder: Path, answer: Answer) -> None:
    """Write image and labels; where they cannot be written the log says so, and the answer goes out as it is."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
    name = f"{stamp}_{secrets.token_hex(4)}.png"
    try:
        for place in ("images", "labels"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "images" / name, encode_png(np.ascontiguousarray(answer.image)))
        write_label_map(folder / "labels" / name, answer.labels, answer.dataset)
    except OSError as error:
        logging.getLogger("uvicorn.error").error("%s is not kept: %s", folder / "images" / name, error)
