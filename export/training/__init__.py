"""Making a model: spoiled pictures, supervision in ViDA-UGC's words, training in stages."""
