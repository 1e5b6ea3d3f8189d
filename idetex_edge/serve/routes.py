"""The API: a route for each task, and what servers are asked about themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from idetex_edge.requests import locate_request, single_request
from idetex_edge.serve import tasks, told
from idetex_edge.serve.access import require_key
from idetex_edge.serve.asked import Ask, Asked, Describe, Ground, Pictures, body_of, body_schema
from idetex_edge.serve.events import EVENT_STREAM, event, streamed, with_first
from idetex_edge.serve.metrics import CONTENT_TYPE, Metrics
from idetex_edge.serve.problems import HttpError, problem_of
from idetex_edge.serve.tasks import Json
from idetex_edge.serve.waiting import pieces, results
from idetex_edge.serve.work import WorkQueue

FAILURES: Final[Mapping[int | str, dict[str, Any]]] = {
    status: {"model": told.Failure, "description": reason}
    for status, reason in (
        (400, "The body is no JSON or no form."),
        (401, "The API key is wrong or missing."),
        (403, "The server has no key and was asked by a name that is not local."),
        (408, "The request came in too slowly."),
        (413, "The body is too large."),
        (415, "The body is neither JSON nor a form."),
        (422, "A picture or a field is no good."),
        (429, "The client has too many requests running."),
        (500, "The server failed."),
        (503, "The queue is full, or the server is shutting down; try again later."),
        (504, "The answer was not ready by the deadline."),
    )
}

api = APIRouter(prefix="/v1", dependencies=[Depends(require_key)], responses={**FAILURES})
about = APIRouter()


@api.post("/assess", response_model=told.Assessed, openapi_extra=body_schema(Pictures))
async def assess(
    request: Request, asked: Annotated[Asked[Pictures], Depends(body_of(Pictures))]
) -> JSONResponse:
    """Score, distortions and description of each picture."""
    return await _answer(request, asked, [tasks.assess(picture) for picture in asked.pictures])


@api.post("/score", response_model=told.Scored, openapi_extra=body_schema(Pictures))
async def score(
    request: Request, asked: Annotated[Asked[Pictures], Depends(body_of(Pictures))]
) -> JSONResponse:
    """How good each picture is, 0..100."""
    return await _answer(request, asked, [tasks.score(picture) for picture in asked.pictures])


@api.post("/ground", response_model=told.Grounded, openapi_extra=body_schema(Ground))
async def ground(
    request: Request, asked: Annotated[Asked[Ground], Depends(body_of(Ground))]
) -> JSONResponse:
    """What is wrong with each picture, and where."""
    region, kind = asked.body.region, asked.body.type
    if region is not None and kind is not None:
        raise HttpError(422, "request", "region and type exclude each other; give one of them")
    if kind is not None:
        locate_request(kind)
    return await _answer(
        request, asked, [tasks.ground(picture, region, kind) for picture in asked.pictures]
    )


@api.post("/ask", response_model=told.Answered, openapi_extra=body_schema(Ask))
async def ask(
    request: Request, asked: Annotated[Asked[Ask], Depends(body_of(Ask))]
) -> JSONResponse:
    """Put a multiple-choice question about each picture."""
    question, choices = asked.body.question, asked.body.choices
    return await _answer(
        request, asked, [tasks.ask(picture, question, choices) for picture in asked.pictures]
    )


@api.post(
    "/describe",
    response_model=told.Described,
    openapi_extra=body_schema(Describe),
    responses={
        200: {
            "description": "Events `piece` with `index` (of the picture) and `piece`; `done` with "
            "`index` and `description`; `error` with `error`. Or, where `stream` is false, JSON.",
            "content": {EVENT_STREAM: {}},
        }
    },
)
async def describe(
    request: Request, asked: Annotated[Asked[Describe], Depends(body_of(Describe))]
) -> Response:
    """Describe each picture's quality in words, or one type of distortion, as they are written."""
    kind = asked.body.type
    if kind is not None:
        single_request(kind)
    if not asked.body.stream:
        silent = [tasks.describe(picture, kind, lambda _: None) for picture in asked.pictures]
        return await _answer(request, asked, silent)
    writing = [partial(tasks.describe, picture, kind) for picture in asked.pictures]
    heard = await with_first(pieces(request, writing, asked.deadline))
    return streamed(_description_events(heard))


async def _description_events(
    heard: AsyncIterator[tuple[int, str | Json]],
) -> AsyncGenerator[str, None]:
    try:
        async for index, said in heard:
            if isinstance(said, str):
                yield event({"index": index, "piece": said}, "piece")
            else:
                yield event({"index": index, "description": said}, "done")
    except HttpError as problem:
        yield event(problem.to_dict(), "error")


async def _answer(
    request: Request, asked: Asked[Any], work: list[tasks.Task[Json]]
) -> JSONResponse:
    try:
        found = await results(request, work, asked.deadline)
    except Exception as error:
        raise problem_of(error) from error
    return JSONResponse({"model": request.app.state.model.id, "results": found})


@api.get("/models", response_model=told.Models)
async def models(request: Request) -> told.Models:
    """Which model is served."""
    return told.Models(object="list", data=[request.app.state.model])


@about.get("/healthz", response_model=told.State, responses={403: FAILURES[403]})
async def healthz() -> told.State:
    """Whether the server is alive."""
    return told.State(status="ok")


@about.get("/readyz", response_model=told.State, responses={s: FAILURES[s] for s in (403, 503)})
async def readyz(request: Request) -> told.State:
    """Whether new requests are taken: the models are loaded, and the server is not closing."""
    work: WorkQueue = request.app.state.work
    if work.closing:
        raise HttpError(503, "closing", "the server is shutting down; ask another one")
    return told.State(status="ready")


@about.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(require_key)],
    responses={
        200: {"content": {CONTENT_TYPE: {"schema": {"type": "string"}}}},
        **{status: FAILURES[status] for status in (401, 403)},
    },
)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.exposition(), headers={"Content-Type": CONTENT_TYPE})
