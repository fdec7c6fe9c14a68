"""kdkit: from a large self-supervised speech model to a small, fast recogniser.

What is named here is imported when it is first used, so that ``import kdkit`` and ``kdkit --help`` load no torch.
"""

from importlib import import_module

_PLACES = {
    "load_teacher": "kdkit.teachers",
    "new_student": "kdkit.students",
    "load_student": "kdkit.students",
    "DistillConfig": "kdkit.distill",
    "DistillTask": "kdkit.distill",
    "regression_loss": "kdkit.losses",
    "discriminative_loss": "kdkit.losses",
    "Fbank": "kdkit.fbank",
    "FbankFrontEnd": "kdkit.fbank",
    "TrainConfig": "kdkit.training.recipe",
    "train": "kdkit.training.loop",
    "fine_tune": "kdkit.recognition.finetune",
    "Recogniser": "kdkit.recognition.transcribe",
    "read_manifest": "kdkit.speech.manifest",
    "Batches": "kdkit.speech.batches",
}
__all__ = list(_PLACES)


def __getattr__(name: str):
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'kdkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
