"""Putting a bundle together: its graphs, its manifest, its sizes, and the folder it grows in."""
