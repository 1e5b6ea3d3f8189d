"""The distortion engine: clean photographs in, spoiled ones with exactly known truth out.

`causes.py` is the table of what can go wrong; `compose.py` spoils a picture and records the truth;
`sheet.py` draws contact sheets to judge it by eye. Pictures are float32 tensors [3, H, W], RGB in
0..1, on any device.
"""
