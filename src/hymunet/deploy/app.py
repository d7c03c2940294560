"""The routes: /v1/segment, /v1/models, /health, /metrics, /openapi.json, and the page."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException

from hymunet import __version__
from hymunet.deploy import bodies, schemas
from hymunet.deploy.answers import INCLUDE_PATTERN, parse_include
from hymunet.deploy.decoding import check_content, check_type
from hymunet.deploy.engine import Engine, Job
from hymunet.deploy.gate import PAGE, Gate, internal, where
from hymunet.deploy.gate import log as gate_log
from hymunet.deploy.limits import Limits
from hymunet.deploy.metrics import CONTENT_TYPE, Metrics
from hymunet.deploy.problems import AbandonedError, RefusedError

if TYPE_CHECKING:
    from hymunet.inference.predictor import Predictor

PAGE_FOLDER = Path(__file__).parent / "page"


def make_app(
    predictor: "Predictor",
    identity: dict[str, Any],
    limits: Limits,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    threads: int | None = None,
) -> tuple[Gate, Engine]:
    """The server's application and its engine, which the caller starts and stops.

    Args:
        predictor: The model.
        identity: `id` and `name` of it.
        limits: Sizes and times.
        token: See `Gate`.
        hosts: See `Gate`.
        threads: See `Engine`.
    """
    facts = model_facts(predictor, identity)
    named = {name: str(facts[name]) for name in ("id", "name")}
    metrics = Metrics(lambda: engine.waiting, named)
    engine: Engine = Engine(predictor, limits, threads, metrics.job_done)
    app = FastAPI(
        title="HyM-UNet",
        version=__version__,
        description="Segments one image a request. Research use only, not a medical device.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    gate = Gate(app, metrics, token, hosts)
    _one_error_shape(app, metrics)
    _add_segment(app, engine, metrics, limits, facts)
    _add_facts(app, engine, metrics, limits, facts, gate)
    _add_page(app)
    return gate, engine


def model_facts(predictor: "Predictor", identity: dict[str, Any]) -> dict[str, Any]:
    """What /v1/models says of the model."""
    from hymunet.inference.outputs import stored_values

    config = predictor.config
    values = stored_values(predictor.info, config.num_labels)
    written = [0, 255] if config.num_labels == 2 else list(range(config.num_labels))
    sigmoid = config.activation == "sigmoid"
    return {
        "id": identity["id"],
        "name": identity["name"],
        "classes": predictor.classes,
        "threshold": predictor.threshold if sigmoid else None,
        "activation": config.activation,
        "licence": predictor.info.get("licence"),
        "label_values": written if values is None else list(values),
        "nested": sigmoid,
        "domain": predictor.info.get("domain"),
        "spatial_dims": config.spatial_dims,
        "in_channels": config.in_channels,
        "postprocess": predictor.postprocess.to_dict(),
    }


def _one_error_shape(app: FastAPI, metrics: Metrics) -> None:
    """Every refusal, the framework's too, as {"error": {code, message}, "request_id"}."""

    def answer(request: Request, problem: RefusedError, more: dict[str, str]) -> JSONResponse:
        metrics.refused(problem.code)
        content = problem.content(request.state.request_id)
        return JSONResponse(content, problem.status, {**more, **problem.headers})

    @app.exception_handler(RefusedError)
    async def refused(request: Request, problem: RefusedError) -> JSONResponse:
        if problem.__cause__ is not None:
            gate_log.warning("%s %s", request.state.request_id, where(problem.__cause__))
        return answer(request, problem, {})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # the place and the rule; what came is not repeated
        said = "; ".join(f"`{one['loc'][-1]}`: {one['msg']}" for one in error.errors()[:3])
        return answer(request, RefusedError("bad-parameter", f"{said}; see /openapi.json"), {})

    @app.exception_handler(HTTPException)
    async def routed(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            allowed = headers.get("Allow", headers.get("allow", "another"))
            problem = RefusedError(
                "method-not-allowed", f"the method is not served here; use {allowed}"
            )
        elif error.status_code == 404:
            message = "there is nothing at this address; see /openapi.json for what there is"
            problem = RefusedError("not-found", message)
        else:
            problem = RefusedError(
                "bad-request", "the request was not understood; see /openapi.json"
            )
        return answer(request, problem, headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return answer(request, internal(), {})


def _add_segment(
    app: FastAPI, engine: Engine, metrics: Metrics, limits: Limits, facts: dict[str, Any]
) -> None:
    held = bodies.Held(limits.held_bytes)
    model = {name: facts[name] for name in schemas.Model.model_fields}

    @app.post(
        "/v1/segment",
        response_model=schemas.Answer,
        openapi_extra=schemas.BODY,
        responses=schemas.responses(400, 401, 408, 413, 415, 421, 422, 429, 503),
        operation_id="segment",
        summary="Segment one image",
    )
    async def segment(
        request: Request,
        include: Annotated[
            str,
            Query(
                description="comma-separated: mask, probability, contours, rle",
                max_length=200,
                json_schema_extra={"pattern": INCLUDE_PATTERN},  # our own refusal says more
            ),
        ] = "mask",
        threshold: Annotated[
            float | None,
            Query(gt=0, lt=1, description="probability from which a pixel belongs to a structure"),
        ] = None,
    ) -> Response:
        begun = request.state.begun
        deadline = begun + limits.timeout_s
        parts = parse_include(include, facts["spatial_dims"])
        if threshold is not None and facts["activation"] != "sigmoid":
            raise RefusedError(
                "bad-parameter",
                "`threshold` is for models of sigmoid outputs; this one takes the most probable "
                "class: leave it out",
            )
        content_type = request.headers.get("content-type")
        is_form = check_type(content_type)
        bodies.check_length(request.headers.get("content-length"), limits)
        engine.check_room()
        with bodies.Body(held, limits) as body:
            with bodies.unexpected_end():
                content = await bodies.read(request.stream(), body, deadline)
            size = len(content)
            if is_form:
                content = await asyncio.to_thread(bodies.form_image, content, content_type or "")
            check_content(content)
            loop = asyncio.get_running_loop()
            done: asyncio.Future[bytes] = loop.create_future()

            def deliver(answer: bytes | Exception) -> None:
                loop.call_soon_threadsafe(_settle, done, answer)

            job = Job(
                request.state.request_id, content, parts, threshold, begun, deadline, deliver, model
            )
            engine.submit(job)
            del content
            answer = await _answer(request, job, done, limits)
        metrics.segmented(time.perf_counter() - begun, size)
        return Response(answer, media_type="application/json")

    @app.exception_handler(AbandonedError)
    async def gone(request: Request, error: AbandonedError) -> Response:
        metrics.gone()
        return Response(status_code=499)  # nobody reads it


def _settle(done: "asyncio.Future[bytes]", answer: bytes | Exception) -> None:
    if done.done():
        return
    if isinstance(answer, Exception):
        done.set_exception(answer)
    else:
        done.set_result(answer)


async def _answer(
    request: Request, job: Job, done: "asyncio.Future[bytes]", limits: Limits
) -> bytes:
    """Waits for the engine, for the client to go away, or for time to be over.

    Raises:
        RefusedError: As the engine's, `waited-too-long` or `too-slow`.
        AbandonedError: If the client has gone.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        left = job.deadline - time.perf_counter()
        either: set[asyncio.Future[Any]] = {done, gone}
        await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        job.abandoned = True
        if gone.done():
            raise AbandonedError
        if "queue" in job.seconds:
            raise RefusedError(
                "too-slow",
                f"the image was not segmented within {limits.timeout_s:g} s; send a smaller one, "
                "or start the server with a higher --timeout",
            )
        raise RefusedError(
            "waited-too-long",
            f"the image waited {limits.timeout_s:g} s and was not begun; come again in 10 s",
            10,
        )
    finally:
        job.abandoned = True
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_facts(
    app: FastAPI,
    engine: Engine,
    metrics: Metrics,
    limits: Limits,
    facts: dict[str, Any],
    gate: Gate,
) -> None:
    bounds = {name: getattr(limits, name) for name in schemas.Bounds.model_fields}

    @app.get(
        "/v1/models",
        response_model=schemas.Models,
        responses=schemas.responses(401, 421, 503),
        operation_id="models",
        summary="The model that is served, and what it takes",
    )
    async def models() -> JSONResponse:
        return JSONResponse({"models": [facts], "limits": bounds, "research_use_only": True})

    @app.get(
        "/health",
        response_model=schemas.Health,
        responses={503: {"model": schemas.Health, "description": "Shutting down."}},
        operation_id="health",
        summary="Whether requests are taken",
    )
    async def health() -> JSONResponse:
        well = engine.alive and not gate.draining
        status = "ok" if well else "shutting down"
        content = {"status": status, "version": __version__, "waiting": engine.waiting}
        return JSONResponse(content, 200 if well else 503)

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI) -> None:
    """The page's files, listed once: a request's path is looked up among them, not on the disk."""
    files = {
        path.relative_to(PAGE_FOLDER).as_posix(): path
        for path in sorted(PAGE_FOLDER.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        # the page names its files relative to itself, as in a static folder
        return Response(status_code=307, headers={"location": PAGE.lstrip("/")})

    @app.get(PAGE + "{name:path}", include_in_schema=False)
    async def page(name: str) -> Response:
        path = files.get(name or "index.html")
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=_MEDIA.get(path.suffix))


_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
