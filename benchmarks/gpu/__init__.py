"""What `benchmarks/kernels.py` measures on a GPU: kernels against floors, the engine against peers.

`cases.py` are the launches, `timing.py` the clock and the floors, `rows.py` what is kept of them;
`engine.py` runs the whole engine, `figures.py` is what is kept of it; `goals.py` says what is to be
reached.
"""
