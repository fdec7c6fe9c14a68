"""The notebooks as one reproducible report: run them, keep what they found, compare runs.

* :mod:`~kdkit.report.plan`: which notebooks, with which parameters; everything is checked before anything runs;
* :mod:`~kdkit.report.execute`: one notebook through papermill, with its progress, time limit and memory;
* :mod:`~kdkit.report.run`: all of them in order, and what is kept where one fails;
* :mod:`~kdkit.report.record`: ``run.json``, what a run was made of and what it found;
* :mod:`~kdkit.report.findings`: the headline, and the claims of the paper, in sentences;
* :mod:`~kdkit.report.index_page`, :mod:`~kdkit.report.notebook_page`: pages that need no network;
* :mod:`~kdkit.report.compare`: runs side by side, and the check of continuous integration.

Reproducibility: on one machine, with the same code, parameters, packages and number of threads, all metrics are equal
to the last digit, except those marked ``timing``. Another processor, number of threads, GPU or package version may
sum in another order or round differently: figures then differ a little, and training amplifies small differences.
``run.json`` says what a run had; ``kdkit report compare`` says whether the intervals overlap.
"""

from kdkit.report.plan import GIVEN, choose_parameters, declared_parameters, find_notebooks
from kdkit.report.run import run_report

__all__ = ["GIVEN", "choose_parameters", "declared_parameters", "find_notebooks", "run_report"]
