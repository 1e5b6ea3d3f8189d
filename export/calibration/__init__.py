"""INT8 by calibration: what the checkpoint's matrices really see, and what they bear.

`observe` reads real photographs through the real prompts of all three tasks, `ranges` chooses each
input's step by measured error, `layers` moves outliers into weights where that is better,
`fallback` leaves in float what costs too much, and a `Plan` is what comes of it.
"""
