"""Between 8-bit pictures and the tensors that distortions work on."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(picture: Image.Image) -> Tensor:
    """An RGB picture as float32 [3, H, W] in 0..1."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


def to_picture(image: Tensor) -> Image.Image:
    """The inverse of `to_tensor`, clipped and rounded to 8 bits."""
    array = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array)
