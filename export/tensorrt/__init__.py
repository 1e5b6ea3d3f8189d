"""TensorRT: which attention it has kernels for, and engines built of a bundle's graphs."""
