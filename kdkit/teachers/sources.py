"""One door for teachers from every source: a shipped one, a bundle, a file, a folder, a hub."""

from __future__ import annotations

import re
from pathlib import Path

from kdkit.downloads import check_sha256, download
from kdkit.errors import CheckpointError
from kdkit.files import cache_folder
from kdkit.teachers import huggingface
from kdkit.teachers.bundles import bundle_names, bundle_of_file, bundle_url, load_bundle
from kdkit.teachers.fairseq import is_fairseq, load_fairseq
from kdkit.teachers.teacher import ASSETS, Teacher, load_model
from kdkit.teachers.unpickling import read_pickle

# fairseq's own files of HuBERT carry the codebook, which torchaudio's and Hugging Face's do not: (url, SHA-256).
# The checksum is the one in textlesslib's list of checkpoints (facebookresearch/textlesslib); it has none for Large.
FAIRSEQ_FILES = {
    "hubert_base_ls960": (
        "https://dl.fbaipublicfiles.com/hubert/hubert_base_ls960.pt",
        "1703cf8d2cdc76f8c046f5f6a9bcd224e0e6caf4744cad1a1f4199c32cac8c8d",
    ),
    "hubert_large_ll60k": ("https://dl.fbaipublicfiles.com/hubert/hubert_large_ll60k.pt", None),
}
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".th")


def load_teacher(source: str | Path = "tiny", sha256: str | None = None) -> Teacher:
    """A frozen teacher (layers are counted as :mod:`kdkit.teachers` says) from any of these:

    * ``"tiny"``, shipped with the kit, or a shipped student by its structure's name (``"tiny-dt-fbank"``);
    * a torchaudio bundle: ``"HUBERT_BASE"``, ``"HUBERT_LARGE"``, ``"WAVLM_BASE"``, ``"WAV2VEC2_BASE"``, ...;
    * ``"hubert_base_ls960"`` or ``"hubert_large_ll60k"``: fairseq's files, the ones with HuBERT's codebook;
    * ``"owner/name"`` (``"owner/name@revision"``) on the Hugging Face hub, or a folder in its format, weights in one
      file or in several, among them DistilHuBERT (``"ntu-spml/distilhubert"``);
    * a file: fairseq's ``.pt``, the form that s3prl makes of it, Microsoft's WavLM, torchaudio's ``.pth`` under its own
      name, or a ``.safetensors`` of kdkit.

    Files are downloaded on first use, into ``teachers/`` of the cache folder ($KDKIT_CACHE). ``sha256`` is a checksum
    that the file must have. No code out of a file is run.

    Raises :class:`CheckpointError` for a file that is missing, damaged or of another architecture, and
    :class:`DownloadError` when a file cannot be fetched; both say what to do.
    """
    return _load(locate(source, sha256), str(source))


def locate(source: str | Path, sha256: str | None = None) -> Path:
    """The file or folder of a teacher, as :func:`load_teacher` takes it, downloaded where it has to be."""
    name = str(source)
    path, url = Path(source), None
    shipped = ASSETS / f"{'tiny_teacher' if name == 'tiny' else name.replace('-', '_')}.safetensors"
    if re.fullmatch(r"tiny[\w-]*", name) and shipped.is_file():
        path = shipped
    elif name in FAIRSEQ_FILES:
        url, recorded = FAIRSEQ_FILES[name]
        sha256 = sha256 or recorded
    elif name in bundle_names():
        url = bundle_url(name)
    elif (
        not path.exists()
        and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w.-]+)?", name)
        and not _is_file_name(path)
    ):
        path = huggingface.fetch(name)
    if url:
        path = cache_folder() / "teachers" / url.rsplit("/", 1)[1]
        download(url, path, sha256)
    elif sha256:
        check_sha256(path, sha256)
    return path


def _load(path: Path, name: str) -> Teacher:
    if path.is_dir():
        model, meta = huggingface.load_folder(path)
        return Teacher(model, None, name, meta)
    of_a_folder = huggingface.is_weights(path)
    if path.suffix == ".safetensors" and not of_a_folder:
        model, codebook, meta = load_model(path)
        return Teacher(model, codebook, name, meta)
    if not path.is_file():
        raise CheckpointError(
            f"{name}: no such teacher, file or folder. Choose 'tiny', {', '.join(map(repr, FAIRSEQ_FILES))}, a bundle "
            f"of torchaudio ({', '.join(bundle_names()[:3])}, ...), 'owner/name' on the Hugging Face hub, or a path"
        )
    if of_a_folder or path.name in (*huggingface.WEIGHTS, *huggingface.INDEXES):
        model, meta = huggingface.load_folder(path.parent)
        return Teacher(model, None, name, meta)
    if path.suffix not in _PICKLED:
        raise CheckpointError(
            f"{path}: unknown ending {path.suffix!r}; a teacher is a .safetensors file of kdkit, a checkpoint of "
            f"torch.save ({', '.join(_PICKLED)}) or a Hugging Face folder"
        )
    content = read_pickle(path)
    if is_fairseq(content):
        model, codebook, meta = load_fairseq(content, path)
        return Teacher(model, codebook, name, meta)
    bundle = bundle_of_file(path)
    if bundle is None:
        keys = list(content)[:4] if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path}: not a checkpoint of fairseq or s3prl (it holds {keys}), and no bundle of torchaudio has a file "
            "of this name; torchaudio's files need their own name, because they do not say what structure they have"
        )
    model, meta = load_bundle(bundle, content, path)
    return Teacher(model, None, name, meta)


def _is_file_name(path: Path) -> bool:
    return path.suffix in (*_PICKLED, ".safetensors")
