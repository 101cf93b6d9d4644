"""The log of a run: rows of numbers in metrics.jsonl and, where asked, in other programs; sentences in log.txt.

means.py    running means of statistics, on the device
sinks.py    TensorBoard and Weights & Biases, behind one small interface
run_log.py  metrics.jsonl and log.txt, continued where a run resumes
"""

from audiobat.engine.logs.means import Means
from audiobat.engine.logs.run_log import RunLog, read_rows
from audiobat.engine.logs.sinks import check_sinks

__all__ = ["Means", "RunLog", "check_sinks", "read_rows"]
