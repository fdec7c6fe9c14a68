"""Models in Hugging Face's format: a folder with config.json and model.safetensors or pytorch_model.bin."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from kdkit.downloads import download, download_json
from kdkit.errors import CheckpointError
from kdkit.files import cache_folder
from kdkit.models import SpeechModel
from kdkit.teachers.names import TRANSFORMERS, build, to_kdkit
from kdkit.teachers.unpickling import read_pickle

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_KNOWN = ("hubert", "wav2vec2", "wavlm")
_FIXED = {  # what kdkit's encoder and CNN do; a model that wants something else is another architecture
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "feat_proj_layer_norm": True,
}


def load_folder(folder: Path) -> tuple[SpeechModel, dict]:
    """The model of a Hugging Face folder, and a description."""
    config = _read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in _KNOWN:
        raise CheckpointError(f"{folder}: model_type is {kind!r}; kdkit knows {', '.join(_KNOWN)}")
    for name, wanted in _FIXED.items():
        if config.get(name, wanted) != wanted:
            raise CheckpointError(
                f"{folder / 'config.json'}: {name} is {config[name]!r}, kdkit's models have {wanted!r}"
            )
    for name in ("num_hidden_layers", "num_attention_heads"):
        if not isinstance(config.get(name), int):
            raise CheckpointError(
                f"{folder / 'config.json'}: {name!r} is missing; is it the config of the model?"
            )
    extractor = folder / "preprocessor_config.json"
    sound = _read_json(extractor) if extractor.is_file() else {}
    rate = sound.get("sampling_rate", 16_000)
    if rate != 16_000:
        raise CheckpointError(f"{extractor}: a model for {rate} Hz; kdkit works at 16,000 Hz")
    # Base models are often marked "do_normalize" though they were trained without it: their group norm undoes it
    settings = {
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "pre_norm": bool(config.get("do_stable_layer_norm", False)),
        "normalise_input": bool(sound.get("do_normalize", config.get("feat_extract_norm") == "layer")),
    }
    if kind == "wavlm":
        settings["relative_distance"] = config.get("max_bucket_distance", 800)
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: no weights; {' or '.join(WEIGHTS)} belongs beside config.json")
    model = build(to_kdkit(_read_weights(path), TRANSFORMERS), settings, path)
    return model, {"format": "Hugging Face", "architecture": kind}


def fetch(repository: str) -> Path:
    """The folder of ``owner/name`` or ``owner/name@revision`` in the cache, downloaded where it is not there.

    The hub publishes the SHA-256 of weights, and they are checked. $HF_ENDPOINT names another hub.
    """
    name, _, revision = repository.partition("@")
    folder = cache_folder() / "teachers" / "huggingface" / repository.replace("/", "--")
    if (folder / "config.json").is_file() and any((folder / weights).is_file() for weights in WEIGHTS):
        return folder
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    revision = revision or "main"
    about = download_json(
        f"{hub}/api/models/{name}/revision/{revision}?blobs=true",
        advice=f"Or put config.json and {' or '.join(WEIGHTS)} of {name} into {folder}",
    )
    there = {file["rfilename"]: file for file in about.get("siblings", [])}
    weights = next((file for file in WEIGHTS if file in there), None)
    if weights is None or "config.json" not in there:
        raise CheckpointError(
            f"{repository}: the hub has no config.json with {' or '.join(WEIGHTS)} there; "
            "a model of transformers is needed"
        )
    for file in filter(there.__contains__, (weights, "preprocessor_config.json", "config.json")):
        published = (there[file].get("lfs") or {}).get("sha256")
        download(f"{hub}/{name}/resolve/{about.get('sha', revision)}/{file}", folder / file, published)
    return folder


def _read_weights(path: Path) -> dict:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path}: not a whole safetensors file ({error}); it may be truncated, download or copy it again"
            ) from error
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds no tensors by name")
    return content


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file; a Hugging Face folder has one beside the weights"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not JSON ({error}); download or copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object; download or copy it again")
    return content
