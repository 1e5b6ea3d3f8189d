"""Triton kernels for edge GPUs: the vision projector, the KV cache, and what lies between them.

Each file is one kernel: what it computes, the launcher that checks its arguments, and the plain
reference that says the same in float64. `python -m kernels build` compiles them ahead of time;
`idetex_edge` runs the result without Triton. Nothing here imports `idetex_edge` or `export`.
"""
