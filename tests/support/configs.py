"""Configs of training runs that need no files."""

from mmpt.config import DatasetConfig, LossConfig, ModelConfig, RunConfig

DATASET = DatasetConfig(
    meta_processor="ShardedHow2MetaProcessor",
    video_processor="ShardedVideoProcessor",
    text_processor="ShardedTextProcessor",
    aligner="VariedLenAligner",
)
CONFIG = RunConfig(
    path="a.yaml",
    dataset=DATASET,
    model=ModelConfig(model_cls="MMFusionSeparate"),
    loss=LossConfig(loss_cls="BCE"),
)
