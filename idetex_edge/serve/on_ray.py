"""The same API on a Ray cluster, by Ray Serve.

    from ray import serve
    from idetex_edge.serve.on_ray import ray_app
    serve.run(ray_app(Settings(api_key=KEY), replicas=8))

Each replica is a whole server with a queue of its own; Ray Serve spreads requests over them.
"""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from idetex_edge.engines import AUTO
from idetex_edge.serve.app import make_app
from idetex_edge.serve.run import open_assessors
from idetex_edge.serve.settings import MAX_PIXELS, Settings

_ROUTED: Final = 1000
"""Requests that Ray hands a replica at once: more than its queue holds, so that it refuses them."""


def ray_app(
    settings: Settings,
    *,
    replicas: int = 1,
    bundle: str | None = None,
    engine: str = AUTO,
    threads: int = 1,
    max_pixels: int = MAX_PIXELS,
) -> Application:
    """An application for `ray.serve.run`: so many replicas of one worker with `threads` CPUs each.

    settings: its host and port are Ray Serve's to choose; without an API key only local names are
    answered. Every machine must have the bundle under the same name.
    """

    def build() -> FastAPI:
        return make_app(open_assessors(bundle, engine, threads, max_pixels, workers=1), settings)

    deploy = serve.deployment(
        num_replicas=replicas,
        ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=_ROUTED,
    )
    return deploy(serve.ingress(build)(_Api)).bind()


class _Api:
    """One server."""
