"""Lowering: our operators (`export.graphs.operators`) replaced by what a target can run.

A dialect is a table of rules, one for each of our operators; `lower` is the pass that applies it.
Matrices have a table of their own (`export.lowering.matrices`), since how a matrix is stored is the
precision's choice and may differ from layer to layer.
"""
