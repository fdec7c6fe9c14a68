"""kdkit: from a large self-supervised speech model to a small, fast recogniser.

What is named here is imported when it is first used, so that ``import kdkit`` and ``kdkit --help`` load no torch.
"""

from importlib import import_module

_PLACES = {"Recogniser": "kdkit.recognition.transcribe", "load_teacher": "kdkit.teachers"}
__all__ = ["Recogniser", "load_teacher"]


def __getattr__(name: str):
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'kdkit' has no attribute {name!r}")
