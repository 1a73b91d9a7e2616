"""Reports: one scoring as one HTML file with numbers, training curves, what was found, and what went wrong."""

import mmpt.reporting.alignments
import mmpt.reporting.choices
import mmpt.reporting.retrieval
import mmpt.reporting.timelines
import mmpt.reporting.whole_videos  # noqa: F401  these register their pictures
from mmpt.reporting.frames import KeyFrames
from mmpt.reporting.markup import Section
from mmpt.reporting.pictures import pictures
from mmpt.reporting.report import write_report
from mmpt.reporting.run import Run

__all__ = ["KeyFrames", "Run", "Section", "pictures", "write_report"]
