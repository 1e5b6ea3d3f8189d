"""Pictures to learn from: photographs by source, spoiled once, kept on disk with their truth."""
