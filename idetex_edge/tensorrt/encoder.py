"""The vision engine at work: one context for every size of picture that it was built for."""

from __future__ import annotations

from collections.abc import Sequence as List

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import TextFacts, VisionFacts
from idetex_edge.cuda.driver import Device
from idetex_edge.engines.feeds import vision_feeds
from idetex_edge.errors import RequestError
from idetex_edge.preprocess import PatchedImage
from idetex_edge.tensorrt.buffers import Buffers
from idetex_edge.tensorrt.runtime import Program


class Encoder:
    """Pictures to features (the contract is `export/graphs/vision.py`'s)."""

    def __init__(
        self, device: Device, programs: List[Program], vision: VisionFacts, text: TextFacts
    ) -> None:
        self._device, self._programs = device, programs
        self._vision, self._hidden = vision, text.hidden
        self._buffers = Buffers(device)

    def encode(self, image: PatchedImage) -> npt.NDArray[np.float32]:
        """Features float32 [merged tokens, hidden]; RequestError for larger ones than built for."""
        patches = len(image.patches)
        fitting = [p for p in self._programs if patches <= p.largest("patches")[0]]
        if not fitting:
            most = self._programs[-1].largest("patches")[0]
            raise RequestError(
                f"the engine was built for {most} patches, the picture has {patches}"
            )
        held, shapes = self._buffers, dict[str, tuple[int, ...]]()
        for name, values in vision_feeds(image, self._vision).items():
            array = held.host(name, values.dtype, values.shape)
            array[:] = values
            held.upload(name, array)
            shapes[name] = values.shape
        tokens = patches // self._vision.merge**2
        features = held.host("features", np.float32, (tokens, self._hidden))
        fitting[0].run(held.addresses, shapes)
        held.download("features", features)
        self._device.synchronize()
        return features.copy()
