"""A bundle's part for GPUs: weights as the `triton` engine's kernels read them, and the kernels."""
