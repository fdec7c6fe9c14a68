"""Widgets of the notebooks: something to move, and a picture that follows at once.

Each is a :class:`Panel`: a thin shell over pure functions, with its state in plain Python, usable without a display,
and with a still picture for pages without a kernel.
"""

from kdkit.lessons.widgets.ctc import CTCViewer
from kdkit.lessons.widgets.dashboard import TrainingDashboard
from kdkit.lessons.widgets.designer import StudentDesigner
from kdkit.lessons.widgets.front_end import FrontEndLab
from kdkit.lessons.widgets.layers import LayerExplorer
from kdkit.lessons.widgets.loss_lab import LossLab
from kdkit.lessons.widgets.panel import Panel
from kdkit.lessons.widgets.voice_layers import VoiceLayers
from kdkit.lessons.widgets.voice_text import VoiceText

__all__ = [
    "CTCViewer",
    "FrontEndLab",
    "LayerExplorer",
    "LossLab",
    "Panel",
    "StudentDesigner",
    "TrainingDashboard",
    "VoiceLayers",
    "VoiceText",
]
