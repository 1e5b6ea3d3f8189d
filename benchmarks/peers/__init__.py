"""Other people's runtimes, measured beside ours: how each is installed, prepared and run.

    python benchmarks/peers/install.py [NAME ...]

makes a virtual environment for each in `.peers/` of the checkout. Each is given the settings that
were found best for it; what they are stands in its file.
"""
