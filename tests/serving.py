"""A real server in this process, on a free port, for tests to talk to, and what they say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from io import BytesIO

import httpx
import uvicorn
from PIL import Image

from idetex_edge.encoded import EncodedImage
from idetex_edge.image import ImageSource
from idetex_edge.serve.app import make_app
from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.settings import Settings


class HeldAssessor(GuardedAssessor):
    """Sees nothing until it is let go, but gives up when it should."""

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle, threads=1)
        self.begun, self.let_go, self.gave_up = (threading.Event() for _ in range(3))

    def encode(self, picture: ImageSource) -> EncodedImage:
        self.begun.set()
        while not self.let_go.wait(0.01):
            try:
                self._check()
            except Exception:
                self.gave_up.set()
                raise
        return super().encode(picture)


@contextmanager
def serving(
    assessors: Sequence[GuardedAssessor], settings: Settings | None = None
) -> Generator[str]:
    """Serve until the block ends; gives the address."""
    app = make_app(assessors, settings or Settings())
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def as_file(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def files(*photos: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    """Pictures as the parts of a form."""
    return [("images", ("photo.png", photo)) for photo in photos]


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and kind of a refusal, which must have a line for people too."""
    error = answer.json()["error"]
    assert error["message"]
    assert "\n" not in error["message"]
    return answer.status_code, error["type"]
