"""How good a bundle is: benchmarks in ViDA-UGC-Bench's form, answered and scored as there."""
