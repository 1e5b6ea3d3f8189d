"""Proof that a bundle says what its checkpoint says.

The bundle's graphs answer on real photographs, greedily and to the answer's end, in all three
tasks; the checkpoint then reads the very same tokens in one pass of transformers' own model, and
the two are compared step by step. Pixels, prompts and positions are those of the runtime, so what
is proven is the path that users run.
"""
