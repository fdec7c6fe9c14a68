"""torchaudio's bundles: HUBERT_BASE, HUBERT_LARGE, WAV2VEC2_BASE, WAVLM_BASE and their relatives."""

from __future__ import annotations

from pathlib import Path

import torchaudio

from kdkit.errors import CheckpointError
from kdkit.models import SpeechModel
from kdkit.teachers.names import TRANSFORMERS, build, to_kdkit

_URL = "https://download.pytorch.org/torchaudio/models/"


def bundle_names() -> list[str]:
    """Names of the bundles that this torchaudio has."""
    pipelines = torchaudio.pipelines
    return [n for n in dir(pipelines) if isinstance(getattr(pipelines, n), pipelines.Wav2Vec2Bundle)]


def bundle_url(name: str) -> str:
    path = getattr(torchaudio.pipelines, name)._path
    return path if path.startswith("https") else _URL + path


def bundle_of_file(path: Path) -> str | None:
    """The bundle whose file has that name: torchaudio's files hold tensors only, not their structure."""
    return next((name for name in bundle_names() if bundle_url(name).endswith("/" + path.name)), None)


def load_bundle(name: str, content: object, where: Path) -> tuple[SpeechModel, dict]:
    """The model of a bundle from the content of its file, and a description."""
    bundle = getattr(torchaudio.pipelines, name)
    if bundle.sample_rate != 16_000:
        raise CheckpointError(f"{name}: a model for {bundle.sample_rate:g} Hz; kdkit works at 16,000 Hz")
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: holds no tensors by name, which torchaudio's {name} does")
    model = build(
        to_kdkit(content, TRANSFORMERS), settings_of(bundle._params, bundle._normalize_waveform), where
    )
    return model, {"format": "torchaudio", "architecture": bundle._model_type}


def settings_of(parameters: dict, normalise: bool) -> dict:
    """What shapes do not tell, from the arguments of torchaudio's ``wav2vec2_model`` or ``wavlm_model``."""
    settings = {
        "layers": parameters["encoder_num_layers"],
        "heads": parameters["encoder_num_heads"],
        "pre_norm": parameters["encoder_layer_norm_first"],
        "normalise_input": normalise,
    }
    if "encoder_max_distance" in parameters:
        settings["relative_distance"] = parameters["encoder_max_distance"]
    return settings
