"""What clients ask: the bodies of requests, as JSON or as forms with files."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

import anyio.to_thread
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from idetex_edge.serve.fetching import fetch
from idetex_edge.serve.gate import DEADLINE
from idetex_edge.serve.problems import HttpError
from idetex_edge.serve.settings import Settings
from idetex_edge.vocabulary import DISTORTIONS

Pixel = Annotated[int, Field(ge=0, le=2**31)]
Choice = Annotated[str, Field(min_length=1, max_length=500)]

PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFElEQVR42mNoIBEw"
    "jGoY1TB8NQAAJYSAELxv8c8AAAAASUVORK5CYII="
)
"""A picture of 16 x 16 grey pixels, for examples."""


class Pictures(BaseModel):
    """Pictures to be looked at, each by itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[str] = Field(
        min_length=1,
        description="Files of pictures (JPEG, PNG, WebP, ...): base64, with or without "
        "`data:...;base64,` in front; or http(s) addresses where the server allows them.",
        examples=[[PIXEL]],
    )


class Ground(Pictures):
    """What is wrong, and where: in the whole picture, in a region of it, or of one type."""

    region: Annotated[list[Pixel], Field(min_length=4, max_length=4)] | None = Field(
        None,
        description="Look only here: x1, y1, x2, y2 in the picture's pixels.",
        examples=[[0, 0, 8, 8]],
    )
    type: str | None = Field(
        None, description=f"Look for one of: {', '.join(DISTORTIONS)}.", examples=["Noise"]
    )


class Ask(Pictures):
    """A multiple-choice question."""

    question: Annotated[str, Field(min_length=1, max_length=2000)] = Field(
        examples=["What is the most significant distortion?"]
    )
    choices: Annotated[list[Choice], Field(min_length=2, max_length=26)] = Field(
        examples=[["Noise", "Motion blur"]]
    )


class Describe(Pictures):
    """A description in words, of everything or of one type of distortion."""

    type: str | None = Field(
        None, description=f"Describe only one of: {', '.join(DISTORTIONS)}.", examples=["Noise"]
    )
    stream: bool = Field(
        True, description="Send server-sent events as it is written, or one JSON answer."
    )


B = TypeVar("B", bound=Pictures)

_LISTS: Final = frozenset(("images", "choices", "region"))
"""Fields that a form repeats."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[B]):
    """A request's body, its pictures as the bytes of their files, and when it must be answered."""

    body: B
    pictures: list[bytes]
    deadline: float


def body_of(model: type[B]) -> Callable[[Request], Coroutine[None, None, Asked[B]]]:
    """A dependency that reads a body of this kind from JSON or a form; raises HttpError."""

    async def read(request: Request) -> Asked[B]:
        settings: Settings = request.app.state.settings
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        files: list[UploadFile | str]
        if kind == "application/json":
            body = read_json(model, await request.body())
            files = [*body.images]
        elif kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
            form = await _form(request)
            files = form.getlist("images")
            body = _from_form(model, form)
        else:
            raise HttpError(
                415, "content_type", "send application/json, or multipart/form-data with files"
            )
        check_count(len(files), settings)
        deadline: float = request.scope[DEADLINE]
        pictures = [
            await file.read()
            if isinstance(file, UploadFile)
            else await picture_bytes(file, f"images[{index}]", settings, deadline)
            for index, file in enumerate(files)
        ]
        return Asked(body, pictures, deadline)

    return read


M = TypeVar("M", bound=BaseModel)


def read_json(model: type[M], data: bytes) -> M:
    """Read and check a JSON body; raises HttpError."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise _invalid(error) from None


def check_count(pictures: int, settings: Settings) -> None:
    """Raise HttpError when a request has more pictures than it may."""
    if pictures > settings.max_pictures:
        raise HttpError(
            422,
            "too_many_pictures",
            f"{pictures} pictures in one request; send at most {settings.max_pictures}",
        )


async def picture_bytes(source: str, where: str, settings: Settings, deadline: float) -> bytes:
    """The file of a picture that is given as text; `where` names it in errors. Raises HttpError."""
    if source[:8].lower().startswith(("http://", "https://")):
        if not settings.allow_urls:
            raise HttpError(
                422, "url", f"{where} is an address, and this server fetches none; send base64"
            )
        left = max(0.0, deadline - time.monotonic())
        with anyio.move_on_after(left):
            return await anyio.to_thread.run_sync(
                lambda: fetch(source, max_bytes=settings.max_body, deadline=deadline),
                abandon_on_cancel=True,
            )
        raise HttpError(504, "deadline", f"{where} could not be fetched in time")
    encoded = source
    if source[:5].lower() == "data:":
        head, _, encoded = source.partition(",")
        if not head.lower().endswith(";base64"):
            raise HttpError(
                422, "base64", f"{where} is a data URL without ';base64,'; encode it so"
            )
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise HttpError(422, "base64", f"{where} is no base64; encode the picture's file") from None
    return data


async def _form(request: Request) -> FormData:
    try:
        return await request.form()
    except HTTPException as error:
        raise HttpError(400, "form", f"the form cannot be read: {error.detail}") from None


def _from_form(model: type[B], form: FormData) -> B:
    fields: dict[str, Any] = {}
    for name in form:
        values = form.getlist(name)
        if name == "images":
            values = ["" for _ in values]
        if any(isinstance(value, UploadFile) for value in values):
            raise HttpError(422, "request", f"{name[:100]!r} is a file; only images may be")
        if name not in _LISTS and len(values) > 1:
            raise HttpError(
                422, "request", f"{name[:100]!r} is given {len(values)} times; once only"
            )
        fields[name] = values if name in _LISTS else values[0]
    try:
        return model.model_validate(fields, strict=False)  # a form knows only text
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> HttpError:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return HttpError(400, "json", f"the body is no JSON: {first['msg']}")
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
    return HttpError(422, "request", f"{where[1:101] or 'the body'}: {first['msg']}")


def body_schema(model: type[Pictures]) -> dict[str, Any]:
    """The `requestBody` of OpenAPI for a body of this kind, as JSON and as a form."""
    json_schema = model.model_json_schema()
    form_schema: dict[str, Any] = {
        **json_schema,
        "properties": {
            **json_schema["properties"],
            "images": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string", "format": "binary"},
                "description": "Files of pictures.",
            },
        },
    }
    example = {
        name: field["examples"][0]
        for name, field in json_schema["properties"].items()
        if "examples" in field and name not in ("region", "type")
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": json_schema, "example": example},
                "multipart/form-data": {"schema": form_schema},
            },
        }
    }
