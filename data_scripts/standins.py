"""Stand-ins for what the real world downloads, small, in the exact forms in which it is published, and their server.

LibriSpeech's and Libri-Light's archives (FLAC, .trans.txt, SPEAKERS.TXT), openslr's language model and lexicon,
fairseq's file of HuBERT Base, DistilHuBERT's folder on the Hugging Face hub. The speech is the synthetic corpus, the
models are the kit's: what comes out of the real path can be compared with the toy world, to the digit.

The kit reads a corpus in an order that hashes of its ids give. The chapters' numbers here are chosen so that this order
is the synthetic corpus's own; readers are voices.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import json
import re
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from unittest.mock import patch

import soundfile
import torch
from formats import Dictionary, foreign_module, named_by_fairseq, with_old_weight_norm
from safetensors.torch import load_file
from torch import Tensor

from kdkit.common.files import md5_of, sha256_of
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc import CTCModel
from kdkit.recognition.export.huggingface import export_huggingface
from kdkit.speech.corpora import librispeech, librispeech_lm
from kdkit.speech.manifest import Utterance
from kdkit.teachers import load

OPENSLR_12, OPENSLR_11, LIBRILIGHT, FAIRSEQ = "resources/12", "resources/11", "librilight/data", "hubert"
COMMIT = 40 * "a"  # of the repository on the hub
TEACHER, FINISHED, LM = "hubert_base_ls960", "ntu-spml/distilhubert", "3-gram.pruned.3e-7"

# --- speech -------------------------------------------------------------------------------------------------


def numbered(utterances: Sequence[Utterance], first_reader: int) -> list[str]:
    """Ids as LibriSpeech gives them, READER-CHAPTER-0000, whose order by hash is that of the utterances."""
    voices = sorted({u.speaker for u in utterances})
    readers, total = {voice: first_reader + i for i, voice in enumerate(voices)}, len(utterances)
    ids = []
    for place, utterance in enumerate(utterances):
        names = (f"{readers[utterance.speaker]}-{chapter}-0000" for chapter in count(100_000))
        ids.append(next(name for name in names if int(hash_of(name) * total) == place))
    return ids


def hash_of(name: str) -> float:
    """Where SHA-256 puts a name between 0 and 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def write_books(folder: Path, utterances: Sequence[Utterance], ids: Sequence[str]) -> None:
    """FOLDER/READER/CHAPTER/ID.flac, and READER-CHAPTER.trans.txt with the texts in capitals."""
    for utterance, name in zip(utterances, ids, strict=True):
        reader, chapter, _ = name.split("-")
        place = folder / reader / chapter
        place.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(utterance.audio, dtype="int16")
        soundfile.write(place / f"{name}.flac", samples, rate, subtype="PCM_16")
        with open(place / f"{reader}-{chapter}.trans.txt", "a", encoding="utf-8") as file:
            file.write(f"{name} {utterance.text.upper()}\n")


def librispeech_archive(site: Path, subset: str, utterances: Sequence[Utterance], first_reader: int) -> Path:
    """SUBSET.tar.gz as openslr.org/12 has it."""
    with tempfile.TemporaryDirectory() as unpacked:
        root = Path(unpacked, "LibriSpeech")
        ids = numbered(utterances, first_reader)
        write_books(root / subset, utterances, ids)
        sex = {name.partition("-")[0]: u.speaker[:1].upper() for u, name in zip(utterances, ids, strict=True)}
        lines = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
        lines += [
            f"{reader:<5}| {sex[reader]} | {subset:<17}| 1.00  | Voice {reader}" for reader in sorted(sex)
        ]
        (root / "SPEAKERS.TXT").write_text("\n".join(lines) + "\n")
        return packed(site / OPENSLR_12 / f"{subset}.tar.gz", root)


def librilight_archive(site: Path, utterances: Sequence[Utterance], first_reader: int) -> Path:
    """librispeech_finetuning.tgz: a twelfth of the utterances in each of six folds, the rest in 9h."""
    ids = numbered(utterances, first_reader)
    share = len(utterances) // 12
    with tempfile.TemporaryDirectory() as unpacked:
        root = Path(unpacked, "librispeech_finetuning")
        for fold in (*librispeech.FOLDS, None):
            part = slice(fold * share, (fold + 1) * share) if fold is not None else slice(6 * share, None)
            place = root / "9h" if fold is None else root / "1h" / str(fold)
            for parity, kind in enumerate(("clean", "other")):
                write_books(place / kind, utterances[part][parity::2], ids[part][parity::2])
        return packed(site / LIBRILIGHT / "librispeech_finetuning.tgz", root)


def packed(archive: Path, folder: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def language_model(site: Path, arpa: Path, words: Sequence[str]) -> None:
    """NAME.arpa.gz in capitals and the lexicon with pronunciations, of an ARPA file in lower case."""
    place = site / OPENSLR_11
    place.mkdir(parents=True, exist_ok=True)
    with gzip.open(place / f"{LM}.arpa.gz", "wt", encoding="utf-8") as file:
        for line in arpa.read_text(encoding="utf-8").splitlines(keepends=True):
            entry = "\t" in line
            text = line.upper() if entry else line
            file.write(text.replace("<S>", "<s>").replace("</S>", "</s>") if entry else text)
    lines = [f"{word.upper()}\tAH0 {'B' * (1 + variant)}\n" for word in words for variant in range(2)]
    (place / librispeech_lm.LEXICON).write_text("".join(lines))


# --- models -------------------------------------------------------------------------------------------------

_SCALED = re.compile(r"\.(attention\.out|ffn_out)\.")


def without_residual_scale(model: SpeechModel) -> SpeechModel:
    """The same function without DeepNorm's residual scale, which no published form has: divided out of the branches.

    Nor does a published form say how much dropout there was: what is read from one has the default.
    """
    plain = SpeechModel(replace(model.config, residual_scale=1.0, dropout=ModelConfig.dropout))
    scale = model.config.residual_scale
    plain.load_state_dict({n: t / scale if _SCALED.search(n) else t for n, t in model.state_dict().items()})
    return plain.requires_grad_(False).eval()


def transformers_tensors(model: SpeechModel) -> dict[str, Tensor]:
    """The model's tensors under transformers' names."""
    with tempfile.TemporaryDirectory() as folder:
        tensors = load_file(export_huggingface(CTCModel(model), Path(folder)) / "model.safetensors")
    return {n.removeprefix("hubert."): t for n, t in tensors.items() if not n.startswith("lm_head.")}


def fairseq_file(site: Path, model: SpeechModel, codebook: Codebook) -> Path:
    """hubert_base_ls960.pt, as fairseq's pre-training saves it."""
    path = site / FAIRSEQ / f"{TEACHER}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "_name": "hubert",
        "encoder_layers": model.config.layers,
        "encoder_attention_heads": model.config.heads,
        "layer_norm_first": False,
        "activation_fn": "gelu",
        "logit_temp": codebook.tau,
    }
    task = {"_name": "hubert_pretraining", "normalize": False, "sample_rate": 16_000}
    tensors = named_by_fairseq(transformers_tensors(model))
    specials = torch.zeros(4, codebook.label_embeddings.shape[1])  # of fairseq's dictionary
    tensors["label_embs_concat"] = torch.cat([specials, codebook.label_embeddings])
    tensors |= {f"final_proj.{name}": t for name, t in codebook.final_proj.state_dict().items()}
    with foreign_module("fairseq.data.dictionary", Dictionary):
        state = {"dictionaries": [Dictionary(len(codebook.label_embeddings))]}
        content = {"model": tensors, "cfg": {"model": settings, "task": task}}
        torch.save(content | {"task_state": state, "extra_state": {"epoch": 1}}, path)
    return path


def hub_folder(site: Path, model: SpeechModel) -> None:
    """The files of DistilHuBERT's repository, weights as a pickle, and what the hub says of them."""
    files = site / FINISHED / "resolve" / COMMIT
    exported = export_huggingface(CTCModel(model), files)
    torch.save(with_old_weight_norm(transformers_tensors(model)), files / "pytorch_model.bin")
    kept = ("config.json", "preprocessor_config.json", "pytorch_model.bin")
    for path in exported.iterdir():
        if path.name not in kept:
            path.unlink()
    config = json.loads((files / "config.json").read_text()) | {
        "architectures": ["HubertModel"],
        "vocab_size": 32,
    }
    (files / "config.json").write_text(json.dumps(config))
    about = site / "api/models" / FINISHED / "revision/main"
    about.parent.mkdir(parents=True)
    about.write_text(listing(FINISHED, files))


def listing(name: str, folder: Path, digests: bool = True) -> str:
    """What the hub says of a repository: README.md, files of ``folder``, SHA-256 of weights if ``digests``."""
    siblings = [{"rfilename": "README.md"}]
    for path in sorted(folder.iterdir()):
        siblings.append({"rfilename": path.name})
        if digests and path.suffix in (".safetensors", ".bin"):
            large = {"sha256": sha256_of(path), "size": path.stat().st_size, "pointerSize": 134}
            siblings[-1]["lfs"] = large
    return json.dumps({"id": name, "sha": COMMIT, "siblings": siblings})


# --- their server -------------------------------------------------------------------------------------------


class Server:
    """Serves what lies in ``folder``, and ``files`` {path: content}, on 127.0.0.1 with range requests, and misbehaves.

    ``asked``: (path, Range) of every request so far. ``cut``: bytes after which each of the next answers breaks off.
    ``shift``: by how much a partial answer begins elsewhere than it was asked to. ``says_length``: is Content-Length
    sent? ``redirects``: {path: address}.
    """

    def __init__(self, folder: Path | None = None):
        self.folder, self.files, self.asked, self.cut = folder, {}, [], []
        self.shift, self.says_length, self.redirects = 0, True, {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path, asked = self.path.partition("?")[0].strip("/"), self.headers.get("Range")
                server.asked.append((path, asked))
                if path in server.redirects:
                    self.send_response(302)
                    self.send_header("Location", server.redirects[path])
                    self.end_headers()
                    return
                data = server.content(path)
                if data is None:
                    self.send_error(404)
                    return
                begin, tag = 0, f'"{hashlib.sha256(data).hexdigest()}"'
                if asked and self.headers.get("If-Range", tag) == tag:
                    begin = int(asked.removeprefix("bytes=").rstrip("-"))
                    if begin >= len(data):
                        self.send_error(416)
                        return
                end = begin + server.cut.pop(0) if server.cut else len(data)
                self.send_response(206 if begin else 200)
                if server.says_length:
                    self.send_header("Content-Length", str(len(data) - begin))
                if begin:
                    start = begin + server.shift
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("ETag", tag)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the client may have given up
                    self.wfile.write(data[begin:end])  # short of Content-Length: the connection is closed

            def do_HEAD(self):
                data = server.content(self.path.partition("?")[0].strip("/"))
                if data is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def content(self, path: str) -> bytes | None:
        file = self.folder / path if self.folder else None
        return file.read_bytes() if file and file.is_file() else self.files.get(path)

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@contextlib.contextmanager
def instead_of_the_network(site: Server, cache: Path) -> Iterator[None]:
    """Within, downloads come from ``site``, are checked against its files, and go to ``cache``."""

    def there(folder: str, names: Sequence[str], digest) -> dict[str, str]:
        found = {name: site.folder / folder / name for name in names}
        return {name: digest(path) for name, path in found.items() if path.is_file()}

    archives = there(OPENSLR_12, [f"{s}.tar.gz" for s in librispeech.SUBSETS], sha256_of)
    texts = there(OPENSLR_11, [f"{LM}.arpa.gz", librispeech_lm.LEXICON], md5_of)
    limited, teacher = "librispeech_finetuning.tgz", f"{TEACHER}.pt"
    model = replace(librispeech_lm.MODELS[LM], md5=texts[f"{LM}.arpa.gz"])
    with (
        patch.dict("os.environ", {"KDKIT_CACHE": str(cache), "HF_ENDPOINT": site.url}),
        patch.object(librispeech, "URL", f"{site.url}/{OPENSLR_12}"),
        patch.dict(librispeech.SUBSETS, {n.removesuffix(".tar.gz"): sha for n, sha in archives.items()}),
        patch.object(librispeech, "LIMITED_URL", f"{site.url}/{LIBRILIGHT}/{limited}"),
        patch.object(librispeech, "LIMITED_SHA256", sha256_of(site.folder / LIBRILIGHT / limited)),
        patch.object(librispeech_lm, "URL", f"{site.url}/{OPENSLR_11}"),
        patch.dict(librispeech_lm.MODELS, {LM: model}),
        patch.object(librispeech_lm, "LEXICON_MD5", texts[librispeech_lm.LEXICON]),
        patch.dict(
            load.FAIRSEQ_FILES,
            {TEACHER: (f"{site.url}/{FAIRSEQ}/{teacher}", sha256_of(site.folder / FAIRSEQ / teacher))},
        ),
    ):
        yield
