from .retritask import RetriTask, VideoRetriTask
from .task import TASKS, Task

__all__ = ["TASKS", "RetriTask", "Task", "VideoRetriTask"]
