"""Data sets."""

from mmpt.datasets.mmdataset import MMDataset, collate

__all__ = ["MMDataset", "collate"]
