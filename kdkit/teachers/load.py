"""Loads a teacher from a name, file, folder or hub id."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kdkit.common.downloads import check_sha256, download
from kdkit.common.errors import CheckpointError
from kdkit.common.files import cache_folder, is_file
from kdkit.common.validation import shown
from kdkit.model.checkpoints import is_own, read_safetensors
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import SpeechModel
from kdkit.teachers import huggingface
from kdkit.teachers.bare import load_bare, tensors_of
from kdkit.teachers.bundles import BUNDLES, bundle_of_file, is_bundle, load_bundle
from kdkit.teachers.dphubert import is_dphubert, load_dphubert
from kdkit.teachers.fairseq import is_distiller, is_fairseq, load_distiller, load_fairseq
from kdkit.teachers.safe_pickle import read_pickle
from kdkit.teachers.teacher import ASSETS, Teacher, load_model

# fairseq's HuBERT files, (URL, SHA-256): they hold the codebook, which torchaudio's and Hugging Face's do not.
# The checksum is from textlesslib's list of checkpoints (facebookresearch/textlesslib), which has none for Large.
FAIRSEQ_FILES = {
    "hubert_base_ls960": (
        "https://dl.fbaipublicfiles.com/hubert/hubert_base_ls960.pt",
        "1703cf8d2cdc76f8c046f5f6a9bcd224e0e6caf4744cad1a1f4199c32cac8c8d",
    ),
    "hubert_large_ll60k": ("https://dl.fbaipublicfiles.com/hubert/hubert_large_ll60k.pt", None),
}
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".th")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w.-]+)?")


def load_teacher(source: str | Path = "tiny", sha256: str | None = None) -> Teacher:
    """A frozen teacher (layers as numbered in :mod:`kdkit.teachers`) from any of these:

    * ``"tiny"``, shipped with the kit, or a shipped student by its structure's name (``"tiny-dt-fbank"``);
    * a torchaudio bundle: ``"HUBERT_BASE"``, ``"HUBERT_LARGE"``, ``"WAVLM_BASE"``, ``"WAV2VEC2_BASE"``, ...;
    * ``"hubert_base_ls960"`` or ``"hubert_large_ll60k"``: fairseq's files, the ones with HuBERT's codebook;
    * ``"owner/name"`` (``"owner/name@revision"``) on the Hugging Face hub, or a folder in its format, weights in one
      file or in several, among them DistilHuBERT (``"ntu-spml/distilhubert"``);
    * a file: fairseq's ``.pt``, the form that s3prl makes of it, Microsoft's WavLM, s3prl's DistilHuBERT, torchaudio's
      ``.pth`` under its own name, DPHuBERT's where nothing was pruned, or a ``.safetensors`` of kdkit;
    * a file with tensors only, a ``state_dict()`` of transformers or torchaudio, also in a Lightning checkpoint, with
      transformers' config.json beside it or of the shape of a published model (``teacher.meta["assumed"]`` says what
      was assumed).

    ``~`` is the home folder. For a fairseq file, ``teacher.meta["codebook"]`` describes its codebook, or says why it
    has none.

    Files are downloaded on first use, into ``teachers/`` of the cache folder ($KDKIT_CACHE). ``sha256``: the checksum
    that the file must have; folders have none. No code from a file is executed.

    Raises :class:`CheckpointError` for a file that is missing, damaged or of another architecture, and
    :class:`DownloadError` when a file cannot be fetched; both say what to do.
    """
    return _load(locate(source, sha256), str(source))


def is_known(name: str) -> bool:
    """Is it a name that :func:`load_teacher` knows by itself: no path, no hub id?"""
    shipped = ASSETS / f"{name.replace('-', '_')}.safetensors"
    tiny = name == "tiny" or (name.startswith("tiny-") and is_file(shipped))
    return tiny or name in FAIRSEQ_FILES or name in BUNDLES


def is_hub_id(name: str) -> bool:
    """Has it the form of an "owner/name" of the Hugging Face hub, rather than of a path to a file of weights?"""
    return bool(_HUB_ID.fullmatch(name)) and Path(name).suffix not in (*_PICKLED, ".safetensors")


def locate(source: str | Path, sha256: str | None = None) -> Path:
    """The file or folder of a teacher (names as in :func:`load_teacher`), downloaded if necessary."""
    name = str(source)
    if re.match(r"\w+://", name):
        hub = re.match(r"https?://(?:www\.)?huggingface\.co/([\w.-]+/[\w.-]+)/?(?:$|\?|tree/|blob/)", name)
        advice = f"give {hub[1]!r}" if hub else "download it first, and give the file's path"
        raise CheckpointError(f"{name}: is a URL; {advice}")
    path, url = Path(source), None
    if name.startswith("~"):
        path = Path(os.path.expanduser(name))
    shipped = ASSETS / f"{'tiny_teacher' if name == 'tiny' else name.replace('-', '_')}.safetensors"
    if re.fullmatch(r"tiny[\w-]*", name) and is_file(shipped):
        path = shipped
    elif name in FAIRSEQ_FILES:
        url, recorded = FAIRSEQ_FILES[name]
        sha256 = sha256 or recorded
    elif name in BUNDLES:
        url = BUNDLES[name].url
    on_hub = url is None and not os.path.exists(path) and is_hub_id(name)
    if sha256 and (on_hub or os.path.isdir(path)):
        raise CheckpointError(f"{name}: a folder has no SHA-256: leave it out, or name the file of weights")
    if on_hub:
        path = huggingface.fetch(name)
    elif url:
        path = cache_folder() / "teachers" / url.rsplit("/", 1)[1]
        download(url, path, sha256)
    elif sha256:
        check_sha256(path, sha256)
    return path


def _load(path: Path, name: str) -> Teacher:
    codebook = None
    if os.path.isdir(path):
        model, meta = huggingface.load_folder(path)
    elif not is_file(path):
        raise CheckpointError(
            f"{shown(name)}: no such teacher, file or folder. Choose 'tiny', {', '.join(map(repr, FAIRSEQ_FILES))}, a "
            f"bundle of torchaudio ({', '.join(list(BUNDLES)[:3])}, ...), 'owner/name' on the Hugging Face hub, or a "
            "path"
        )
    elif huggingface.is_weights(path) or path.name in (huggingface.WEIGHTS[1], *huggingface.INDEXES):
        model, meta = huggingface.load_folder(path.parent)
    elif path.suffix == ".safetensors":
        tensors, header = read_safetensors(path)
        if is_own(header) or tensors_of(tensors) is None:
            model, codebook, meta = load_model(path)
        else:
            model, meta = load_bare(tensors, path)
    elif path.suffix in _PICKLED:
        model, codebook, meta = _unpickled(path)
    else:
        raise CheckpointError(
            f"{path}: unknown ending {path.suffix!r}; a teacher is a .safetensors file of kdkit, a checkpoint of "
            f"torch.save ({', '.join(_PICKLED)}) or a Hugging Face folder"
        )
    return Teacher(model, codebook, name, meta)


def _unpickled(path: Path) -> tuple[SpeechModel, Codebook | None, dict]:
    content = read_pickle(path)
    if is_fairseq(content):
        return load_fairseq(content, path)
    bundle, tensors = bundle_of_file(path), tensors_of(content)
    if is_distiller(content):
        model, meta = load_distiller(content, path)
    elif is_dphubert(content):
        model, meta = load_dphubert(content, path)
    elif tensors is None:
        keys = shown(list(content)[:4] if isinstance(content, dict) else type(content).__name__)
        raise CheckpointError(
            f"{path}: no checkpoint of fairseq, s3prl, torchaudio or transformers; it holds {keys}. A model that was "
            "saved whole has to be saved again by its state_dict()"
        )
    elif bundle is not None and is_bundle(bundle, tensors, path):
        model, meta = load_bundle(BUNDLES[bundle], tensors, path)
    else:
        model, meta = load_bare(tensors, path)
    return model, None, meta
