"""ONNX graphs of Qwen2-VL and Qwen2.5-VL, built from their parts under our own contract."""
