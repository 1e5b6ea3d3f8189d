"""Folders to tables: many pictures assessed on one machine, or on many with Ray."""

from idetex_edge.batch.dataset import assess_dataset
from idetex_edge.batch.folder import assess_to_table

__all__ = ["assess_dataset", "assess_to_table"]
