from .frames import KeyFrames
from .report import write_report
from .run import EvaluationRun, Section, prediction_sections

__all__ = [
    "EvaluationRun",
    "KeyFrames",
    "Section",
    "prediction_sections",
    "write_report",
]
