from .mmdataset import MMDataset, collate

__all__ = ["MMDataset", "collate"]
