"""The words of the field: distortions, severities, levels, and the markers around boxes.

Names and markers follow ViDA-UGC and Qwen2-VL; training, export and runtime share this one table.
"""

from typing import Final

DISTORTIONS: Final = (
    "Low clarity",
    "Edge aliasing effect",
    "Blocking artifacts",
    "Underexposure",
    "Overexposure",
    "Out of focus blur",
    "Motion blur",
    "Noise",
    "Meaningless solid color",
    "Edge ringing effect",
)
"""The ten distortion types of ViDA-UGC, spelled as in its grounding answers."""

SEVERITIES: Final = ("minor", "moderate", "severe")
"""Severities, from barely perceptible to dominating the picture."""

LEVELS: Final = ("bad", "poor", "fair", "good", "excellent")
"""Quality levels; level i stands for a mean opinion score (MOS) of i + 1."""

CONCERNS: Final = ("position", "type", "significance", "severity")
"""What a multiple-choice question of ViDA-UGC is about."""

BOX_SCALE: Final = 1000
"""Boxes in text are integers 0..1000 relative to the picture's width and height."""

OBJECT_REF_START: Final = "<|object_ref_start|>"
OBJECT_REF_END: Final = "<|object_ref_end|>"
BOX_START: Final = "<|box_start|>"
BOX_END: Final = "<|box_end|>"
IM_START: Final = "<|im_start|>"
IM_END: Final = "<|im_end|>"
VISION_START: Final = "<|vision_start|>"
VISION_END: Final = "<|vision_end|>"
IMAGE_PAD: Final = "<|image_pad|>"

NO_DISTORTION: Final = "No distortion"
"""What a grounding answer says of a picture or region without distortions."""

QUALITY_SENTENCE: Final = "Thus, the quality of the image is"
"""How every full description ends; the level follows."""


def box_text(box: tuple[int, int, int, int]) -> str:
    """Write a 0..1000 box (x1, y1, x2, y2) with its markers, as the models do."""
    x1, y1, x2, y2 = box
    return f"{BOX_START}({x1},{y1}),({x2},{y2}){BOX_END}"
