from .charts import loss_charts, retrieval_charts
from .page import Evaluation, describe_best, describe_state, write_training_page
from .run import TrainingRun, is_training_run, read_training_runs
from .tables import difference_rows, summary_of, summary_rows

__all__ = [
    "Evaluation",
    "TrainingRun",
    "describe_best",
    "describe_state",
    "difference_rows",
    "is_training_run",
    "loss_charts",
    "read_training_runs",
    "retrieval_charts",
    "summary_of",
    "summary_rows",
    "write_training_page",
]
