"""Floor 8: training of dictionaries and small language models; checkpoints, metrics, configurations."""

from jaxinterp.training.api import train
from jaxinterp.training.loop import Interrupted, LoopConfig, Task, run

__all__ = ["Interrupted", "LoopConfig", "Task", "run", "train"]
