"""How fast a bundle is on this machine: `idetex-edge bench` and `benchmarks/latency.py`.

Each contender (an engine of ours, or a peer) is a process of its own that answers a scenario when
it is told to, so that all can be measured in turn, A B A B, and each has its own peak of memory.
"""
