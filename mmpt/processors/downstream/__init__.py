"""Processors of the downstream sets; importing this package registers them all."""

from mmpt.processors.downstream.base import DSAligner, TextProcessor, VideoProcessor
from mmpt.processors.downstream.how2_clips import How2ClipMetaProcessor, How2ClipVideoProcessor

__all__ = ["DSAligner", "How2ClipMetaProcessor", "How2ClipVideoProcessor", "TextProcessor", "VideoProcessor"]
