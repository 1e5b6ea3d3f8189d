"""The HTTP server: the Assessor's tasks as an API, its limits, and the page at `/`."""
