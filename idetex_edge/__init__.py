"""Explain image quality on the device: scores, boxes, answers and reasons from a small MLLM."""
