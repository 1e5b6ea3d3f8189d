"""What `benchmarks/kernels.py` measures on a GPU: kernels against floors, the engine against peers.

`cases.py` lists the launches of `layers.py` and `attention.py`; `timing.py` is the clock and the
floors, `rows.py` what is kept of a launch. `engine.py` runs the whole engine, `figures.py` is what
is kept of it. `goals.py` says what is to be reached.
"""
