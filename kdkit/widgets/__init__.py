"""Widgets of the notebooks: something to move, and a picture that follows at once.

Each is a :class:`Panel`: a thin shell over pure functions, with its state in plain Python, usable without a display,
and with a still picture for pages without a kernel.
"""

from kdkit.widgets.ctc import CTCViewer
from kdkit.widgets.dashboard import TrainingDashboard
from kdkit.widgets.designer import StudentDesigner
from kdkit.widgets.front_end import FrontEndLab
from kdkit.widgets.layers import LayerExplorer
from kdkit.widgets.loss_lab import LossLab
from kdkit.widgets.panel import Panel

__all__ = [
    "CTCViewer",
    "FrontEndLab",
    "LayerExplorer",
    "LossLab",
    "Panel",
    "StudentDesigner",
    "TrainingDashboard",
]
