"""What `benchmarks/kernels.py` measures on a GPU: kernels against floors, the engine against peers.

`cases.py` are the launches, `timing.py` the clock and the floors, `goals.py` what is to be reached,
`engine.py` the whole engine.
"""
