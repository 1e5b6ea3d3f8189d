"""The table of causes: for each distortion, the physical ways it comes about and how strong.

`ranges` gives the main parameter's span for minor, moderate and severe, tuned by eye on contact
sheets (`python -m export sheet`): barely seen, seen at a glance, dominating. Causes marked
`held_out` are never trained on; validation reports the gap between seen and unseen ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from export.distortions import (
    aliasing,
    blur,
    clarity,
    compression,
    exposure,
    noise,
    ringing,
    solid,
)
from export.distortions.chance import Chance

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Cause:
    """One way a distortion comes about; `apply(image [3, H, W], strength, chance)` spoils it."""

    distortion: str
    apply: Callable[[Tensor, float, Chance], Tensor]
    ranges: tuple[Range, Range, Range]
    held_out: bool = False

    @property
    def name(self) -> str:
        """The function's own name, with spaces."""
        return self.apply.__name__.replace("_", " ")


_UPSCALE = ((1.7, 2.2), (2.6, 3.6), (4.5, 7.0))
_STAIRS = ((1.7, 2.1), (2.6, 3.4), (4.2, 6.5))
_QUALITY = ((22.0, 32.0), (11.0, 16.0), (3.0, 7.0))
_UNDER = ((1.0, 1.5), (2.0, 2.8), (3.5, 5.0))
_OVER = ((0.6, 0.9), (1.2, 1.7), (2.2, 3.2))
_DISK = ((1.6, 2.4), (3.2, 5.0), (7.0, 12.0))
_MOTION = ((5.0, 8.0), (11.0, 18.0), (26.0, 45.0))
_NOISE = ((0.025, 0.04), (0.065, 0.10), (0.14, 0.21))
_HALO = ((0.6, 0.9), (1.3, 1.9), (2.3, 3.6))
_ANY = ((0.0, 1.0), (0.0, 1.0), (0.0, 1.0))

CAUSES: Final = (
    Cause("Low clarity", clarity.bicubic_upscale, _UPSCALE),
    Cause("Low clarity", clarity.bilinear_upscale, ((1.5, 1.9), (2.3, 3.2), (4.0, 6.5))),
    Cause("Low clarity", clarity.haze, ((1.6, 2.1), (2.6, 3.2), (3.7, 4.2))),
    Cause("Low clarity", clarity.waxy, ((1.0, 1.4), (2.0, 2.9), (4.0, 6.0))),
    Cause("Low clarity", clarity.diffused, ((1.0, 1.4), (1.9, 2.5), (3.1, 3.9))),
    Cause("Low clarity", clarity.resampled_twice, _UPSCALE),
    Cause("Low clarity", clarity.windowed_upscale, _UPSCALE),
    Cause("Low clarity", clarity.rimmed_upscale, _UPSCALE),
    Cause("Low clarity", clarity.uneven_upscale, ((2.0, 2.6), (3.0, 4.2), (5.2, 8.0))),
    Cause("Low clarity", clarity.median_smoothed, ((1.6, 2.4), (3.8, 4.8), (8.2, 10.0))),
    Cause("Low clarity", clarity.smeared_chroma, ((2.0, 2.6), (3.2, 4.4), (5.5, 8.5))),
    Cause("Low clarity", clarity.faded, ((1.6, 2.1), (2.6, 3.2), (3.7, 4.3))),
    Cause("Low clarity", clarity.soft_upscale, _UPSCALE, held_out=True),
    Cause("Edge aliasing effect", aliasing.nearest_upscale, _STAIRS),
    Cause("Edge aliasing effect", aliasing.averaged_nearest_upscale, _STAIRS),
    Cause("Edge aliasing effect", aliasing.decimated, ((1.7, 2.0), (2.4, 3.0), (3.6, 5.0))),
    Cause("Edge aliasing effect", aliasing.interlaced, ((2.0, 2.4), (3.0, 4.0), (5.0, 7.0))),
    Cause("Edge aliasing effect", aliasing.stretched, _STAIRS),
    Cause("Edge aliasing effect", aliasing.decimated_twice, _STAIRS),
    Cause("Edge aliasing effect", aliasing.decimated_spline, _STAIRS),
    Cause("Edge aliasing effect", aliasing.decimated_windowed, _STAIRS),
    Cause("Edge aliasing effect", aliasing.decimated_sharpened, _STAIRS),
    Cause("Edge aliasing effect", aliasing.decimated_one_way, ((2.0, 2.4), (3.0, 3.8), (4.8, 7.0))),
    Cause("Edge aliasing effect", aliasing.shaken_pixels, _STAIRS),
    Cause("Edge aliasing effect", aliasing.hard_edges, _STAIRS),
    Cause("Edge aliasing effect", aliasing.decimated_bicubic, _STAIRS),
    Cause("Edge aliasing effect", aliasing.turned_pixels, _STAIRS, held_out=True),
    Cause("Blocking artifacts", compression.tensor_jpeg, _QUALITY),
    Cause("Blocking artifacts", compression.jpeg, _QUALITY),
    Cause("Blocking artifacts", compression.repeated_jpeg, _QUALITY),
    Cause("Blocking artifacts", compression.large_blocks, _QUALITY),
    Cause("Blocking artifacts", compression.enlarged_jpeg, _QUALITY),
    Cause("Blocking artifacts", compression.first_scans, _QUALITY),
    Cause("Blocking artifacts", compression.stretched_jpeg, _QUALITY),
    Cause("Blocking artifacts", compression.webp, ((14, 24), (7, 11), (0, 5)), held_out=True),
    Cause("Underexposure", exposure.fewer_stops, _UNDER),
    Cause("Underexposure", exposure.darker_gamma, _UNDER),
    Cause("Underexposure", exposure.crushed_shadows, _UNDER),
    Cause("Underexposure", exposure.lost_light, _UNDER),
    Cause("Underexposure", exposure.flat_dark, _UNDER),
    Cause("Underexposure", exposure.tinted_dusk, _UNDER),
    Cause("Underexposure", exposure.darker_display, _UNDER, held_out=True),
    Cause("Overexposure", exposure.more_stops, _OVER),
    Cause("Overexposure", exposure.lighter_gamma, _OVER),
    Cause("Overexposure", exposure.washed_highlights, _OVER),
    Cause("Overexposure", exposure.added_offset, _OVER),
    Cause("Overexposure", exposure.bloom, _OVER),
    Cause("Overexposure", exposure.screened, _OVER),
    Cause("Overexposure", exposure.clipped_colours, _OVER),
    Cause("Overexposure", exposure.brighter_display, _OVER, held_out=True),
    Cause("Out of focus blur", blur.disk, _DISK),
    Cause("Out of focus blur", blur.defocus_gaussian, _DISK),
    Cause("Out of focus blur", blur.soft_aperture, _DISK),
    Cause("Out of focus blur", blur.ring_aperture, _DISK),
    Cause("Out of focus blur", blur.coloured_defocus, _DISK),
    Cause("Out of focus blur", blur.polygon_aperture, _DISK, held_out=True),
    Cause("Motion blur", blur.linear_motion, _MOTION),
    Cause("Motion blur", blur.curved_motion, _MOTION),
    Cause("Motion blur", blur.jerky_motion, _MOTION),
    Cause("Motion blur", blur.uneven_motion, _MOTION),
    Cause("Motion blur", blur.repeated_exposure, _MOTION),
    Cause("Motion blur", blur.turning_camera, _MOTION),
    Cause("Motion blur", blur.zooming, _MOTION),
    Cause("Motion blur", blur.camera_shake, _MOTION, held_out=True),
    Cause("Noise", noise.gaussian, _NOISE),
    Cause("Noise", noise.luma, _NOISE),
    Cause("Noise", noise.poisson, _NOISE),
    Cause("Noise", noise.chroma, _NOISE),
    Cause("Noise", noise.sensor, _NOISE),
    Cause("Noise", noise.speckle, _NOISE),
    Cause("Noise", noise.impulse, _NOISE),
    Cause("Noise", noise.demosaiced, _NOISE),
    Cause("Noise", noise.enlarged, _NOISE),
    Cause("Noise", noise.transmitted, _NOISE),
    Cause("Noise", noise.shadow_noise, _NOISE),
    Cause("Noise", noise.fixed_pattern, _NOISE),
    Cause("Noise", noise.dithered, _NOISE),
    Cause("Noise", noise.half_denoised, _NOISE),
    Cause("Noise", noise.film_grain, _NOISE, held_out=True),
    Cause("Meaningless solid color", solid.flat, _ANY),
    Cause("Meaningless solid color", solid.black_or_white, _ANY),
    Cause("Meaningless solid color", solid.picked_colour, _ANY),
    Cause("Meaningless solid color", solid.gradient, _ANY),
    Cause("Meaningless solid color", solid.mean_colour, _ANY, held_out=True),
    Cause("Edge ringing effect", ringing.oversharpened, _HALO),
    Cause("Edge ringing effect", ringing.band_limited, _HALO),
    Cause("Edge ringing effect", ringing.resonant, _HALO),
    Cause("Edge ringing effect", ringing.wide_halo, _HALO),
    Cause("Edge ringing effect", ringing.sharpened_twice, _HALO),
    Cause("Edge ringing effect", ringing.sharpened_light, _HALO),
    Cause("Edge ringing effect", ringing.truncated_sinc, _HALO),
    Cause("Edge ringing effect", ringing.difference_halo, _HALO, held_out=True),
)

CHAIN: Final = (
    "Out of focus blur",
    "Motion blur",
    "Underexposure",
    "Overexposure",
    "Low clarity",
    "Edge aliasing effect",
    "Noise",
    "Edge ringing effect",
    "Blocking artifacts",
    "Meaningless solid color",
)
"""The order in which distortions meet a picture: lens, light, scaling, sensor, codec, failure."""


def causes_of(distortion: str, held_out: bool) -> tuple[Cause, ...]:
    """The causes of one distortion, either those trained on or those held out."""
    return tuple(c for c in CAUSES if c.distortion == distortion and c.held_out == held_out)
