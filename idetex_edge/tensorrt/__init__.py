"""Building a bundle's graphs into TensorRT engines: on a workshop machine or on the device."""
