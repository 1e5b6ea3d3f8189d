"""Explain image quality on the device: scores, boxes, answers and reasons from a small MLLM."""

from idetex_edge.assessor import Assessor
from idetex_edge.encoded import EncodedImage
from idetex_edge.errors import (
    BundleError,
    EngineError,
    ExportError,
    IdetexError,
    ImageError,
    OutputError,
    RequestError,
)
from idetex_edge.results import Answer, Assessment, Description, Distortion, Score

__all__ = [
    "Answer",
    "Assessment",
    "Assessor",
    "BundleError",
    "Description",
    "Distortion",
    "EncodedImage",
    "EngineError",
    "ExportError",
    "IdetexError",
    "ImageError",
    "OutputError",
    "RequestError",
    "Score",
]
