"""What the `triton` engine is made of: ahead-of-time kernels on the bare CUDA driver.

`contents.py` reads a bundle's part for it, `driver.py` and `kernel.py` talk to the GPU, `slots.py`
keeps the KV cache's book, `chunks.py` says who reads what in it, `layers.py`, `vision.py` and
`language.py` are the model. No torch, no Triton, no compiler.
"""
