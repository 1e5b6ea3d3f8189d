"""Watch a camera: score each newest frame, and say why when the picture gets bad.

    python examples/camera_loop.py --folder FRAMES            # pictures in a folder, by name
    python examples/camera_loop.py --device /dev/video0       # a camera; needs opencv-python

The model takes longer than a frame lasts, so frames that come meanwhile are passed over: what is
judged is what the camera sees now. Description and boxes cost more than a score, so they are asked
for only when the score, averaged over some frames, has fallen below the limit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Annotated, Final

import typer

from idetex_edge import Assessor
from idetex_edge.image import ImageSource
from idetex_edge.pictures import find_pictures

AVERAGED: Final = 3
"""Frames over which the score is averaged: one bad frame is no alarm."""


def frames_of_folder(folder: Path) -> Iterator[ImageSource]:
    """Every picture of a folder, in order."""
    for found in find_pictures([str(folder)]):
        yield found.path


def frames_of_device(device: str) -> Iterator[ImageSource]:
    """The newest frame of a V4L2 camera, whenever one is asked for."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise typer.BadParameter("reading a camera needs opencv-python") from None
    camera = cv2.VideoCapture(device, cv2.CAP_V4L2)
    newest: deque[ImageSource] = deque(maxlen=1)
    arrived = threading.Event()

    def read() -> None:
        while True:
            ok, frame = camera.read()
            if ok:
                newest.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            else:
                newest.clear()
            arrived.set()
            if not ok:
                return

    threading.Thread(target=read, daemon=True).start()
    while True:
        arrived.wait()
        arrived.clear()
        if not newest:
            return
        yield newest.pop()


def main(
    folder: Annotated[Path | None, typer.Option(help="Frames as pictures.")] = None,
    device: Annotated[str | None, typer.Option(help="A camera, such as /dev/video0.")] = None,
    limit: Annotated[float, typer.Option(help="Alarm below this score, 0..100.")] = 40,
    bundle: str | None = None,
) -> None:
    """Score frames until there are no more."""
    if (folder is None) == (device is None):
        raise typer.BadParameter("give --folder or --device")
    assessor = Assessor(bundle)
    scores: deque[float] = deque(maxlen=AVERAGED)
    alarmed = False
    frames = frames_of_device(device) if device else frames_of_folder(folder or Path())
    for number, frame in enumerate(frames):
        seen = assessor.encode(frame)
        scores.append(assessor.score(seen).score)
        print(f"frame {number}: {scores[-1]:.1f}")
        bad = len(scores) == AVERAGED and mean(scores) < limit
        if bad and not alarmed:
            found = assessor.ground(seen)
            print(f"  alarm: {', '.join(f'{d.severity} {d.type.lower()}' for d in found)}")
        alarmed = bad


if __name__ == "__main__":
    typer.run(main)
