"""The composition root: builds data sets, model and loss from a config, and plans the batches of each epoch."""

from mmpt.tasks.retritask import RetriTask, VideoRetriTask
from mmpt.tasks.task import TASKS, Task

__all__ = ["TASKS", "RetriTask", "Task", "VideoRetriTask"]
