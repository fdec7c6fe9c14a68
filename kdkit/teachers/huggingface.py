"""Models in Hugging Face's format: a folder with config.json and weights.

Weights are in model.safetensors or pytorch_model.bin; those of a large model in several such files ("shards") and an
index that maps tensors to files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

from kdkit.common.errors import CheckpointError, DownloadError
from kdkit.common.files import cache_folder, is_file, read_text, sha256_of, stand_in
from kdkit.common.validation import shown
from kdkit.model.checkpoints import read_safetensors
from kdkit.model.speech_model import SpeechModel
from kdkit.model.waveform import KERNELS, STRIDES
from kdkit.teachers.safe_pickle import read_pickle
from kdkit.teachers.settings import MOST, Settings, check_convolutions
from kdkit.teachers.weight_names import build, sort_out

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEXES = tuple(f"{name}.index.json" for name in WEIGHTS)
_SHARD = re.compile(r"[\w-][\w.-]*\.(safetensors|bin)")
BESIDE = (  # further files of a model: of its audio input, and of a recogniser's vocabulary
    "preprocessor_config.json",
    "processor_config.json",
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
KEPT_WINDOW = "kdkit_window"  # entry of config.json in kdkit's exports: window of the recogniser, in seconds
_KNOWN = ("hubert", "wav2vec2", "wavlm")
_FIXED = {  # settings that kdkit's encoder and CNN have; other values mean another architecture
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "add_adapter": False,  # of speech translation
    "adapter_attn_dim": None,  # of MMS: weights per language within the layers
}


def load_folder(folder: Path) -> tuple[SpeechModel, dict]:
    """The model of a Hugging Face folder, and a description."""
    model, meta, _ = load_with_head(folder)
    return model, meta


def load_with_head(folder: Path) -> tuple[SpeechModel, dict, dict]:
    """The model of a Hugging Face folder, a description, and all tensors (heads too) under transformers' names."""
    settings, kind = settings_of(folder)
    path = next((folder / name for name in (*WEIGHTS, *INDEXES) if is_file(folder / name)), None)
    if path is None:
        raise CheckpointError(f"{folder}: no weights; {' or '.join(WEIGHTS)} belongs beside config.json")
    tensors = _read_shards(path) if path.name in INDEXES else _read_weights(path)
    model = build(sort_out(tensors, path), settings, path)
    return model, {"format": "Hugging Face", "architecture": kind}, tensors


def settings_of(folder: Path) -> tuple[dict, str]:
    """Settings of the model from a folder's config.json and preprocessor files, and the model's type."""
    where = folder / "config.json"
    config = Settings(read_json(where), where)
    kind = config.get("model_type")
    if kind not in _KNOWN:
        raise CheckpointError(f"{folder}: model_type is {shown(kind)}; kdkit knows {', '.join(_KNOWN)}")
    for name, wanted in _FIXED.items():
        config.expect(name, wanted)
    kernels, strides = (config.get(f"conv_{name}") for name in ("kernel", "stride"))
    check_convolutions(
        list(KERNELS) if kernels is None else kernels, list(STRIDES) if strides is None else strides, where
    )
    norm = config.choice("feat_extract_norm", ("group", "layer"), "group")
    sound = _sound(folder)
    sound.rate("sampling_rate")
    # Base models often have "do_normalize" though they were trained without; their group norm makes both equal
    settings = {
        "layers": config.whole("num_hidden_layers", *MOST["layers"]),
        "heads": config.whole("num_attention_heads", *MOST["heads"]),
        "pre_norm": config.flag("do_stable_layer_norm", False),
        "conv_norm": norm,
        "normalise_input": sound.flag("do_normalize", norm == "layer"),
        "feature_norm": config.flag("feat_proj_layer_norm", True),  # DistilHuBERT has none
    }
    if kind == "wavlm":
        settings["relative_distance"] = config.whole("max_bucket_distance", *MOST["relative_distance"], 800)
    return settings, kind


def _sound(folder: Path) -> Settings:
    """Sample rate and normalisation: of processor_config.json (transformers 5), else of preprocessor_config.json."""
    unified = folder / "processor_config.json"
    if is_file(unified):
        nested = Settings(read_json(unified), unified).section("feature_extractor")
        if nested is not None:
            return nested
    single = folder / "preprocessor_config.json"
    return Settings(read_json(single) if is_file(single) else {}, single)


def is_config(path: Path) -> bool:
    """True if ``path`` is a config.json of a model type that kdkit knows."""
    return is_file(path) and read_json(path).get("model_type") in _KNOWN


def is_weights(path: Path) -> bool:
    """True if ``path`` is named like weights, a shard or an index, with a config.json beside it."""
    known = re.fullmatch(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?", path.name)
    return bool(known) and is_file(path.parent / "config.json")


def fetch(repository: str) -> Path:
    """The folder of ``owner/name`` or ``owner/name@revision`` in the cache, downloaded if necessary.

    huggingface_hub downloads, resumes, and sends $HF_TOKEN for private models; $HF_ENDPOINT names another hub. The hub
    publishes the SHA-256 of weights, which is verified. Raises :class:`DownloadError` that says how to do it by hand,
    and :class:`CheckpointError` for a repository without a model of transformers.
    """
    from huggingface_hub import HfApi, hf_hub_download

    name, _, revision = repository.partition("@")
    folder = cache_folder() / "teachers" / "huggingface" / repository.replace("/", "--")
    if (folder / "config.json").is_file() and _is_complete(folder):
        return folder
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    advice = f"Or put config.json and {' or '.join(WEIGHTS)} of {name} into {folder}"
    with _download_errors(f"{hub}/{name}", advice):
        about = HfApi(hub).model_info(name, revision=revision or "main", files_metadata=True)
    there = {file.rfilename: file for file in about.siblings or ()}
    weights = next((file for file in (*WEIGHTS, *INDEXES) if file in there), None)
    if weights is None or "config.json" not in there:
        raise CheckpointError(
            f"{repository}: the hub has no config.json with {' or '.join(WEIGHTS)} there; "
            "a model of transformers is needed"
        )

    def get(file: str) -> Path:
        with _download_errors(f"{hub}/{name}: {file}", advice):
            path = Path(hf_hub_download(name, file, revision=about.sha, local_dir=folder, endpoint=hub))
        published = there[file].lfs and there[file].lfs.sha256
        if published and sha256_of(path) != published:
            path.unlink()
            raise DownloadError(
                f"{path}: has another SHA-256 than {hub} publishes; removed. Try again. {advice}"
            )
        return path

    shards = _shards(get(weights)) if weights in INDEXES else []
    absent = [file for file in shards if file not in there]
    if absent:
        raise CheckpointError(f"{repository}: {weights} names {absent[0]}, which the hub does not have there")
    for number, file in enumerate(shards, 1):
        print(f"{repository}: {file}, {number} of {len(shards)}")
        get(file)
    if weights in WEIGHTS:
        get(weights)
    # config.json last: its presence means that the folder is complete
    for file in filter(there.__contains__, (*BESIDE, "config.json")):
        get(file)
    return folder


@contextmanager
def _download_errors(what: str, advice: str) -> Iterator[None]:
    """Within, errors become a :class:`DownloadError`: huggingface_hub raises those of its HTTP library, too."""
    try:
        yield
    except Exception as error:
        reason = shorten(str(error.__cause__ or error), 300)
        raise DownloadError(f"{what}: cannot be downloaded ({reason}). {advice}") from error


def _is_complete(folder: Path) -> bool:
    if any((folder / weights).is_file() for weights in WEIGHTS):
        return True
    index = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
    return index is not None and all((folder / shard).is_file() for shard in _shards(index))


def _weight_map(index: Path) -> dict[str, str]:
    """{tensor: file}, where files are plain names beside the index. Raises :class:`CheckpointError` otherwise."""
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{index}: has no 'weight_map' that names the files of the tensors")
    strange = [file for file in found.values() if not isinstance(file, str) or not _SHARD.fullmatch(file)]
    if strange:
        raise CheckpointError(f"{index}: names {strange[0]!r}, which is no file of weights beside it")
    return found


def _shards(index: Path) -> list[str]:
    return sorted(set(_weight_map(index).values()))


def _read_shards(index: Path) -> dict:
    """All tensors of the files that an index names. Raises :class:`CheckpointError` if a file or tensor is missing."""
    weight_map, tensors = _weight_map(index), {}
    shards = sorted(set(weight_map.values()))
    absent = [shard for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise CheckpointError(
            f"{index.parent}: {len(absent)} of {len(shards)} files of weights are missing, the first is {absent[0]}; "
            f"{index.name} names them, download or copy them there"
        )
    for shard in shards:
        tensors |= _read_weights(index.parent / shard)
    lost = sorted(weight_map.keys() - tensors.keys())
    if lost:
        raise CheckpointError(
            f"{index.parent / weight_map[lost[0]]}: tensor {lost[0]!r} is missing, though {index.name} says that it is "
            "there; the files are not of one model, download or copy them again"
        )
    return tensors


def _read_weights(path: Path) -> dict:
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds no tensors by name")
    return content


def read_json(path: Path) -> dict:
    """The JSON object in a file. Raises :class:`CheckpointError` that names the file if there is none."""
    text = read_text(path, CheckpointError, "no such file; a Hugging Face folder has one beside the weights")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: {stand_in(path) or f'not JSON ({error})'}; download or copy it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object; download or copy it again")
    return content
