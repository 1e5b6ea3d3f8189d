"""The server as an ASGI app."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from idetex_edge.errors import IdetexError
from idetex_edge.overlay import COLOURS
from idetex_edge.serve import told
from idetex_edge.serve.chat import DEFINITIONS, chat
from idetex_edge.serve.gate import Gate
from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.measured import Measured
from idetex_edge.serve.metrics import Metrics
from idetex_edge.serve.problems import HttpError, problem_of
from idetex_edge.serve.routes import about, api
from idetex_edge.serve.settings import Settings
from idetex_edge.serve.work import WorkQueue

PAGE: Final = Path(__file__).parent / "page.html"

_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src "
    "'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def make_app(assessors: Sequence[GuardedAssessor], settings: Settings) -> FastAPI:
    """Serve with one worker for each Assessor; they must have the same bundle."""
    metrics = Metrics()
    work = WorkQueue(assessors, settings.queue, metrics)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncGenerator[None, None]:
        work.start()
        yield
        await anyio.to_thread.run_sync(work.close)

    app = FastAPI(
        title="idetex-edge",
        description="How good pictures are, what is wrong with them, where, how badly, and why.",
        version="1",
        lifespan=running,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings, app.state.work, app.state.metrics = settings, work, metrics
    app.state.model = _model(assessors[0])
    for router in (api, chat, about):
        app.include_router(router)
    app.add_middleware(Gate, settings=settings, work=work)
    app.add_middleware(Measured, metrics=metrics)
    for kind in (HttpError, HTTPException, IdetexError, Exception):
        app.add_exception_handler(kind, _tell)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        """The page for people."""
        text = PAGE.read_text(encoding="utf-8").replace("__COLOURS__", json.dumps(COLOURS))
        return HTMLResponse(text, headers=_PAGE_HEADERS)

    app.openapi = lambda: _described(app)
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI of this server: without a key, nothing in it asks for one."""
    if app.openapi_schema is None:
        routes: dict[str, Any] = {"routes": app.routes, "description": app.description}
        found = get_openapi(title=app.title, version=app.version, **routes)
        found["components"]["schemas"] |= DEFINITIONS
        if app.state.settings.api_key is None:
            del found["components"]["securitySchemes"]
            for path in found["paths"].values():
                for operation in path.values():
                    operation.pop("security", None)
                    operation["responses"].pop("401", None)
        app.openapi_schema = found
    return app.openapi_schema


async def _tell(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        problem = HttpError(error.status_code, "http", str(error.detail))
        answer = problem.response()
        answer.headers.update(error.headers or {})
        return answer
    return problem_of(error).response()


def _model(assessor: GuardedAssessor) -> told.Model:
    return told.Model(
        id=assessor.model,
        object="model",
        created=int(time.time()),
        owned_by="idetex-edge",
        engine=assessor.engine,
        precision=assessor.bundle.manifest.precision,
    )
