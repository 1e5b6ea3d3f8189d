"""The workshop: photographs to a model, a model to a bundle, with proof at every step."""
