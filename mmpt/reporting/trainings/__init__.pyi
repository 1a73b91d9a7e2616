from .charts import loss_charts, retrieval_charts
from .page import Evaluation, describe_best, describe_state, write_training_page
from .run import Training, is_training, read_trainings
from .tables import difference_rows, figures_of, summary_rows

__all__ = [
    "Evaluation",
    "Training",
    "describe_best",
    "describe_state",
    "difference_rows",
    "figures_of",
    "is_training",
    "loss_charts",
    "read_trainings",
    "retrieval_charts",
    "summary_rows",
    "write_training_page",
]
