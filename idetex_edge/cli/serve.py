"""`idetex-edge serve`: the tasks over HTTP, and a page to look at."""

from __future__ import annotations

from typing import Annotated

import typer

from idetex_edge.cli.options import BundleName, EngineName, Threads
from idetex_edge.engines import AUTO
from idetex_edge.errors import RequestError
from idetex_edge.serve.settings import API_KEY, MAX_PIXELS, WORKERS, Settings

_DEFAULTS = Settings()


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback needs an API key.")
    ] = _DEFAULTS.host,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = _DEFAULTS.port,
    api_key: Annotated[
        str | None,
        typer.Option(envvar=API_KEY, help="Key that clients must send as a bearer token."),
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch pictures from public web addresses.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Pictures seen at once; they share the threads.")
    ] = WORKERS,
    queue: Annotated[
        int, typer.Option(min=1, help="Pictures that may wait; more are answered 503.")
    ] = _DEFAULTS.queue,
    per_client: Annotated[
        int, typer.Option(min=1, help="Requests at once from one address; more are answered 429.")
    ] = _DEFAULTS.per_client,
    deadline: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds a request may take; then 504.")
    ] = _DEFAULTS.deadline,
    max_body: Annotated[
        int, typer.Option(min=1024, help="Bytes a request may have; more are answered 413.")
    ] = _DEFAULTS.max_body,
    max_pictures: Annotated[
        int, typer.Option(min=1, help="Pictures a request may have; more are answered 422.")
    ] = _DEFAULTS.max_pictures,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels a picture may have; more are answered 422.")
    ] = MAX_PIXELS,
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
) -> None:
    """Serve every task over HTTP, with a page for people at /.

    The API is described at /openapi.json; /v1/chat/completions is OpenAI's. Ends at Ctrl-C or
    SIGTERM when the requests that are there are answered.
    """
    settings = Settings(
        host, port, api_key, allow_urls, max_body, max_pictures, queue, per_client, deadline
    )
    try:
        from idetex_edge.serve.run import open_assessors, serve
    except ModuleNotFoundError as error:
        raise RequestError(
            f"serving needs {error.name}; pip install 'idetex-edge[serve]'"
        ) from None
    assessors = open_assessors(bundle, engine, threads, max_pixels, workers)

    def listening(address: str) -> None:
        typer.echo(f"{assessors[0].model} on {assessors[0].engine} is served at {address}")

    serve(assessors, settings, listening)
