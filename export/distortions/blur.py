"""Out of focus blur and motion blur: optical point-spread functions."""

import cmath
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as nn_f
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.filters import convolve, gaussian_blur, to_display, to_linear

_OVERSAMPLING = 4


def _through(image: Tensor, kernel: Tensor) -> Tensor:
    """Blur in linear light, where highlights bloom as they do in a lens."""
    return to_display(convolve(to_linear(image), kernel / kernel.sum()))


def _grid(radius: float) -> tuple[Tensor, Tensor]:
    reach = math.ceil(radius)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


def disk(image: Tensor, radius: float, chance: Chance) -> Tensor:
    """A round aperture: uniform disk of `radius` pixels with a one-pixel soft rim."""
    y, x = _grid(radius)
    return _through(image, (radius + 0.5 - torch.hypot(x, y)).clamp(0, 1))


def polygon_aperture(image: Tensor, radius: float, chance: Chance) -> Tensor:
    """An iris of five to eight straight blades, randomly turned."""
    y, x = _grid(radius)
    blades = chance.randint(5, 8)
    turn = chance.uniform(0, math.pi)
    inside = torch.full_like(x, torch.inf)
    for blade in range(blades):
        angle = turn + 2 * math.pi * blade / blades
        inside = torch.minimum(inside, radius - (x * math.cos(angle) + y * math.sin(angle)))
    return _through(image, (inside + 0.5).clamp(0, 1))


def defocus_gaussian(image: Tensor, radius: float, chance: Chance) -> Tensor:
    """A Gaussian of about the same width as a disk of `radius` pixels."""
    return gaussian_blur(image, radius * 0.55)


def soft_aperture(image: Tensor, radius: float, chance: Chance) -> Tensor:
    """An aperture that the lens barrel cuts to an oval, its rim bright or dark."""
    y, x = _grid(1.15 * radius)
    turn, squeeze = chance.uniform(0, math.pi), chance.uniform(0.6, 1.0)
    along = x * math.cos(turn) + y * math.sin(turn)
    across = (y * math.cos(turn) - x * math.sin(turn)) / squeeze
    reach = torch.hypot(along, across) / (1.15 * radius)
    rim = chance.uniform(-0.7, 1.0)
    return _through(image, (reach <= 1) * (1 + rim * reach.clamp(max=1) ** 2))


def _trace(points: Tensor) -> Tensor:
    """Draw a path [n, 2] (y, x in pixels, centred on 0) into a kernel, bilinearly."""
    reach = math.ceil(float(points.abs().max())) + 1
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1)
    corner = points.floor().long()
    part = points - corner
    for dy in (0, 1):
        for dx in (0, 1):
            weight_y = part[:, 0] if dy else 1 - part[:, 0]
            weight_x = part[:, 1] if dx else 1 - part[:, 1]
            at = (corner[:, 0] + dy + reach, corner[:, 1] + dx + reach)
            kernel.index_put_(at, weight_y * weight_x, accumulate=True)
    return kernel


def _straight(along: Tensor, angle: float) -> Tensor:
    """The path [n, 2] (y, x) of points so many pixels along a line at an angle."""
    return torch.stack((along * math.sin(angle), along * math.cos(angle)), dim=1)


def linear_motion(image: Tensor, length: float, chance: Chance) -> Tensor:
    """Straight motion of `length` pixels in a random direction."""
    angle = chance.uniform(0, math.pi)
    along = torch.linspace(-length / 2, length / 2, max(2, round(length * _OVERSAMPLING)))
    return _through(image, _trace(_straight(along, angle)))


def jerky_motion(image: Tensor, length: float, chance: Chance) -> Tensor:
    """Two straight strokes with a turn between them, the camera resting longer on one."""
    bend, share = chance.uniform(-2.2, 2.2), chance.uniform(0.3, 0.7)
    start = chance.uniform(0, 2 * math.pi)
    strokes: list[Tensor] = []
    at = torch.zeros(2)
    for heading, part, density in ((start, share, 1), (start + bend, 1 - share, 2)):
        steps = max(2, round(length * part * _OVERSAMPLING * density))
        direction = torch.tensor([math.sin(heading), math.cos(heading)])
        strokes.append(at + torch.linspace(0, length * part, steps)[:, None] * direction)
        at = strokes[-1][-1]
    path = torch.cat(strokes)
    return _through(image, _trace(path - path.mean(0)))


def curved_motion(image: Tensor, length: float, chance: Chance) -> Tensor:
    """Motion of `length` pixels along an arc that turns by up to a right angle."""
    steps = max(4, round(length * _OVERSAMPLING))
    start, turn = chance.uniform(0, 2 * math.pi), chance.uniform(-math.pi / 2, math.pi / 2)
    heading = start + torch.linspace(0, turn, steps)
    path = torch.stack((heading.sin(), heading.cos()), dim=1).cumsum(0) * (length / steps)
    return _through(image, _trace(path - path.mean(0)))


def camera_shake(image: Tensor, length: float, chance: Chance) -> Tensor:
    """Hand shake: a smooth random walk about `length` pixels long."""
    steps = max(8, round(length * _OVERSAMPLING))
    wander = chance.normal((steps,), image).cpu().cumsum(0) * (1.2 / math.sqrt(steps))
    heading = chance.uniform(0, 2 * math.pi) + wander
    path = torch.stack((heading.sin(), heading.cos()), dim=1).cumsum(0) * (length / steps)
    return _through(image, _trace(path - path.mean(0)))


def ring_aperture(image: Tensor, radius: float, chance: Chance) -> Tensor:
    """A mirror lens: its secondary mirror blocks the middle of the aperture."""
    y, x = _grid(1.1 * radius)
    reach = torch.hypot(x, y)
    inner = chance.uniform(0.35, 0.6) * radius
    return _through(image, (1.1 * radius + 0.5 - reach).clamp(0, 1) * (reach >= inner))


def coloured_defocus(image: Tensor, radius: float, chance: Chance) -> Tensor:
    """A lens that focuses colours at different depths: each channel has its own disk."""
    spread = chance.uniform(0.1, 0.35)
    factors = (1 - spread, 1.0, 1 + spread)
    factors = factors if chance.random() < 0.5 else factors[::-1]
    channels = zip(image.split(1), factors, strict=True)
    return torch.cat([disk(channel, factor * radius, chance) for channel, factor in channels])


def uneven_motion(image: Tensor, length: float, chance: Chance) -> Tensor:
    """Straight motion that speeds up or slows down while the shutter is open."""
    angle, power = chance.uniform(0, 2 * math.pi), chance.uniform(1.5, 3.0)
    along = length * torch.linspace(0, 1, max(2, round(length * _OVERSAMPLING * 2))) ** power
    path = _straight(along, angle)
    return _through(image, _trace(path - path.mean(0)))


def repeated_exposure(image: Tensor, length: float, chance: Chance) -> Tensor:
    """A swaying hand: the camera rests at both ends of its way, so that outlines double."""
    angle = chance.uniform(0, math.pi)
    phase = torch.linspace(0, math.pi, max(4, round(length * _OVERSAMPLING)))
    along = 0.5 * length * phase.cos()
    return _through(image, _trace(_straight(along, angle)))


def _averaged_views(image: Tensor, views: Sequence[tuple[complex, complex]]) -> Tensor:
    """The mean in linear light of views of [3, H, W], each a map of pixels' places.

    Places are complex, x + iy in pixels from the picture's middle; a view (turn, shift) shows at
    place z what lay at turn * z + shift.
    """
    height, width = image.shape[-2:]
    light, total = to_linear(image)[None], torch.zeros_like(image)
    for turn, shift in views:
        x = (turn.real, -turn.imag * height / width, 2 * shift.real / width)
        y = (turn.imag * width / height, turn.real, 2 * shift.imag / height)
        grid = nn_f.affine_grid(torch.tensor([[x, y]]).to(image), [1, *image.shape], False)
        total += nn_f.grid_sample(light, grid, padding_mode="reflection", align_corners=False)[0]
    return to_display(total / len(views))


def _far_centre(image: Tensor, chance: Chance) -> complex:
    """A point far enough outside that all of the picture moves about as much around it."""
    away = 2.5 * max(image.shape[-2:])
    return cmath.rect(away, chance.uniform(0, 2 * math.pi))


def turning_camera(image: Tensor, length: float, chance: Chance) -> Tensor:
    """The camera rolls about a point far outside the picture, whose middle moves `length` px."""
    centre = _far_centre(image, chance)
    turn = length / abs(centre)
    angles = torch.linspace(-turn / 2, turn / 2, max(2, round(length * 1.5))).tolist()
    turns = [cmath.rect(1, angle) for angle in angles]
    return _averaged_views(image, [(turn, centre - turn * centre) for turn in turns])


def zooming(image: Tensor, length: float, chance: Chance) -> Tensor:
    """A drive ahead towards a point far outside the picture, whose middle moves `length` px."""
    centre = _far_centre(image, chance)
    reach = length / abs(centre)
    scales = torch.linspace(1 - reach / 2, 1 + reach / 2, max(2, round(length * 1.5))).tolist()
    return _averaged_views(image, [(scale, centre - scale * centre) for scale in scales])
