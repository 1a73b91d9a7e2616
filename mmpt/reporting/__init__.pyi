from .frames import KeyFrames
from .report import write_report
from .run import Run, Section, pictures

__all__ = ["KeyFrames", "Run", "Section", "pictures", "write_report"]
