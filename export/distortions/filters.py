"""Linear filters shared by the causes: convolution, Gaussian kernels, resampling, colour planes."""

import torch
import torch.nn.functional as nn_f
from torch import Tensor

_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)

_FFT_STEP = 32
"""Transforms are taken over sides rounded up to this: prime lengths are many times slower."""


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel of [C, H, W] with an odd-sided kernel [k, k], edges reflected.

    Done in the frequency domain: blur kernels of 30 px are common here.
    """
    radius = kernel.shape[-1] // 2
    height, width = image.shape[-2:]
    pad_y, pad_x = min(radius, height - 1), min(radius, width - 1)
    padded = nn_f.pad(image[None], (pad_x, pad_x, pad_y, pad_y), mode="reflect")[0]
    if pad_y < radius or pad_x < radius:
        rest_x, rest_y = radius - pad_x, radius - pad_y
        padded = nn_f.pad(padded[None], (rest_x, rest_x, rest_y, rest_y), mode="replicate")[0]
    size = [-(-side // _FFT_STEP) * _FFT_STEP for side in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernel.to(image), s=size)
    full = torch.fft.irfft2(spectrum, s=size)
    return full[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def gaussian_kernel(sigma: float) -> Tensor:
    """A normalised Gaussian [k, k] that reaches three sigma; sigma in pixels."""
    radius = max(1, round(3 * sigma))
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    line = torch.exp(-(axis**2) / (2 * sigma**2))
    kernel = line[:, None] * line[None, :]
    return kernel / kernel.sum()


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur [C, H, W] with a Gaussian of `sigma` pixels."""
    return convolve(image, gaussian_kernel(sigma))


def resize(image: Tensor, height: int, width: int, mode: str) -> Tensor:
    """Resample [C, H, W]; `mode` is torch's, antialiased when shrinking with a smooth one."""
    smooth = mode in ("bilinear", "bicubic")
    shrinking = height < image.shape[-2] or width < image.shape[-1]
    return nn_f.interpolate(
        image[None],
        size=(height, width),
        mode=mode,
        align_corners=False if smooth else None,
        antialias=smooth and shrinking,
    )[0]


def to_ycc(image: Tensor) -> Tensor:
    """RGB [..., 3, H, W] to JPEG's YCbCr (BT.601, full range); chroma centred on 0."""
    return torch.einsum("ij,...jhw->...ihw", torch.tensor(_TO_YCC, device=image.device), image)


def from_ycc(planes: Tensor) -> Tensor:
    """The inverse of `to_ycc`."""
    inverse = torch.linalg.inv(torch.tensor(_TO_YCC, dtype=torch.float64)).to(planes)
    return torch.einsum("ij,jhw->ihw", inverse, planes)


def to_linear(image: Tensor) -> Tensor:
    """Display values to linear light, by a plain 2.2 gamma."""
    return image.clamp(0, 1) ** 2.2


def to_display(light: Tensor) -> Tensor:
    """Linear light to display values, by a plain 2.2 gamma."""
    return light.clamp(0, 1) ** (1 / 2.2)
