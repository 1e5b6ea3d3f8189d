"""OpenAI's chat completions, for clients that speak nothing else.

The model is trained for a few tasks, so the last user message is read as one of them; `_task_of`
has the rules.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from idetex_edge.assessor import Assessor
from idetex_edge.evaluation.submission import grounding_text
from idetex_edge.serve import tasks, told
from idetex_edge.serve.access import require_key
from idetex_edge.serve.asked import PIXEL, check_count, picture_bytes, read_json
from idetex_edge.serve.events import EVENT_STREAM, event, streamed, with_first
from idetex_edge.serve.gate import DEADLINE
from idetex_edge.serve.problems import HttpError
from idetex_edge.serve.routes import FAILURES
from idetex_edge.serve.waiting import Tell, pieces
from idetex_edge.serve.work import Task

chat = APIRouter(prefix="/v1", dependencies=[Depends(require_key)], responses={**FAILURES})

_OPTION: Final = re.compile(r"^\s*([A-Z])[.)]\s*(\S.*?)\s*$", re.MULTILINE)
_POINT: Final = r"\(\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\)"
_REGION: Final = re.compile(rf"{_POINT}\s*,?\s*{_POINT}")
_WHERE: Final = re.compile(r"bounding box|coordinates|\bwhere\b|\blocate\b", re.IGNORECASE)
_DONE: Final = "data: [DONE]\n\n"


class Strict(BaseModel):
    """A body whose fields must have their types; fields that mean nothing here are let pass."""

    model_config = ConfigDict(strict=True)


class ImageUrl(Strict):
    """A picture as a data URL, or as an address where the server fetches those."""

    url: str


class ImagePart(Strict):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(Strict):
    """Words in a message."""

    type: Literal["text"]
    text: str = Field(max_length=20_000)


Part = Annotated[ImagePart | TextPart, Field(discriminator="type")]


class Message(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=20_000)] | list[Part]


class ResponseFormat(Strict):
    """What the answer's text is to be."""

    type: Literal["text", "json_object"] = "text"


class Chat(Strict):
    """A conversation whose last user message has one picture and says what to do with it.

    Five tasks are understood. With `response_format` of type `json_object`, the whole assessment
    as JSON. With options, a line each (`A. ...`), the letter of one. Asked where distortions are
    (`bounding box`, `where`), or about a region `(x1,y1),(x2,y2)` in 0..1000 of the picture,
    distortions in ViDA-UGC's form. With another question, a sentence, where the model has learnt
    to answer one. With any other words, a description. Sampling options are accepted and change
    nothing: answers are the likeliest ones.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "nano",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": PIXEL}},
                            {"type": "text", "text": "Which is it?\nA. Noise\nB. Motion blur"},
                        ],
                    }
                ],
            }
        }
    )

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    response_format: ResponseFormat = ResponseFormat()


SCHEMA: Final = Chat.model_json_schema(ref_template="#/components/schemas/{model}")
DEFINITIONS: Final[dict[str, Any]] = SCHEMA.pop("$defs")
"""What the schema of a request refers to, for OpenAPI's components."""


class Reply(BaseModel):
    """The assistant's message."""

    role: str
    content: str


class ChatChoice(BaseModel):
    """The only choice."""

    index: int
    message: Reply
    finish_reason: str


class Completion(BaseModel):
    """An answer as OpenAI's clients expect it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]


@chat.post(
    "/chat/completions",
    response_model=Completion,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}}
    },
    responses={
        404: {"model": told.Failure, "description": "There is no such model."},
        200: {"content": {EVENT_STREAM: {}}},
    },
)
async def complete(request: Request) -> Response:
    """Answer in the form of OpenAI's chat completions."""
    asked = read_json(Chat, await request.body())
    served: told.Model = request.app.state.model
    if asked.model != served.id:
        raise HttpError(
            404, "model", f"there is no model {asked.model[:99]!r} here, but {served.id}"
        )
    words, sources = _last_turn(asked)
    settings, deadline = request.app.state.settings, request.scope[DEADLINE]
    check_count(len(sources), settings)
    if len(sources) != 1:
        raise HttpError(
            422, "request", f"the last user message has {len(sources)} pictures; send one"
        )
    picture = await picture_bytes(sources[0], "the picture", settings, deadline)
    writing = _task_of(words, asked.response_format.type == "json_object", picture)
    heard = await with_first(pieces(request, [writing], deadline))
    frame = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": served.id,
    }
    if asked.stream:
        return streamed(_chunks(heard, frame))
    said = "".join([piece async for _, piece in heard if isinstance(piece, str)])
    message = {"role": "assistant", "content": said}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse({**frame, "object": "chat.completion", "choices": [choice]})


async def _chunks(
    heard: AsyncIterator[tuple[int, object]], frame: dict[str, Any]
) -> AsyncGenerator[str, None]:
    def chunk(delta: dict[str, str], reason: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return event({**frame, "object": "chat.completion.chunk", "choices": [choice]})

    try:
        yield chunk({"role": "assistant", "content": ""}, None)
        async for _, piece in heard:
            if isinstance(piece, str):
                yield chunk({"content": piece}, None)
    except HttpError as problem:
        yield event(problem.to_dict())
        return
    yield chunk({}, "stop")
    yield _DONE


def _last_turn(asked: Chat) -> tuple[str, list[str]]:
    """The words and pictures of the last user message."""
    turns = [message.content for message in asked.messages if message.role == "user"]
    if not turns:
        raise HttpError(422, "request", "there is no user message; send one with a picture")
    if isinstance(turns[-1], str):
        return turns[-1], []
    words = [part.text for part in turns[-1] if isinstance(part, TextPart)]
    return "\n".join(words), [
        part.image_url.url for part in turns[-1] if isinstance(part, ImagePart)
    ]


def _task_of(words: str, as_json: bool, picture: bytes) -> Callable[[Tell], Task[None]]:
    """What the words ask for; the task tells its answer's text."""
    options = list(_OPTION.finditer(words))
    region = _REGION.search(words)

    def read(assessor: Assessor) -> str | None:
        if as_json:
            return assessor.assess(picture).to_json()
        if len(options) > 1:
            question = words[: options[0].start()]
            answer = assessor.ask(picture, question, [option[2] for option in options])
            return options[answer.index][1]
        if region is not None:
            corners = [int(number) for number in region.groups()]
            return grounding_text(assessor.ground(picture, region_1000=corners), " ")
        if _WHERE.search(words):
            return grounding_text(assessor.ground(picture), "\n")
        if words.rstrip().endswith("?") and "question" in assessor.bundle.manifest.prompts:
            return assessor.answer(picture, words)
        return None

    def write(assessor: Assessor, tell: Tell) -> None:
        said = read(assessor)
        if said is None:
            tasks.describe(picture, None, tell)(assessor)
        else:
            tell(said)

    return lambda tell: lambda assessor: write(assessor, tell)
