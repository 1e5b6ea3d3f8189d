"""Through other sizes and back: what lost clarity and aliasing have in common."""

from PIL.Image import Resampling
from torch import Tensor

from export.distortions.filters import resize
from export.distortions.pictures import to_picture, to_tensor


def smaller(image: Tensor, factor: float) -> tuple[int, int]:
    """The size (height, width) of [C, H, W] shrunk `factor` times, at least 4 px each way."""
    height, width = image.shape[-2:]
    return max(4, round(height / factor)), max(4, round(width / factor))


def there_and_back(image: Tensor, factor: float, down: str, up: str) -> Tensor:
    """Shrink [C, H, W] `factor` times and enlarge it again, by torch's modes `down` and `up`."""
    small = resize(image, *smaller(image, factor), mode=down)
    return resize(small, image.shape[-2], image.shape[-1], mode=up)


def resize_by(image: Tensor, height: int, width: int, window: Resampling) -> Tensor:
    """Resample [C, H, W] by one of Pillow's filters, in 8 bits."""
    return to_tensor(to_picture(image).resize((width, height), window)).to(image)
