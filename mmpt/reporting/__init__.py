"""Reports: a scoring as one HTML file with numbers, training curves, predictions and failures."""

import mmpt.reporting.alignments
import mmpt.reporting.choices
import mmpt.reporting.retrieval
import mmpt.reporting.timelines
import mmpt.reporting.whole_videos  # noqa: F401  these register their pictures
from mmpt.reporting.frames import KeyFrames
from mmpt.reporting.pictures import Section, pictures
from mmpt.reporting.report import write_report
from mmpt.reporting.run import Run

__all__ = ["KeyFrames", "Run", "Section", "pictures", "write_report"]
