"""One NVIDIA GPU, as the engines that drive it themselves see it."""
