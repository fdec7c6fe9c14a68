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
from formats import Dictionary, foreign_module
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
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


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

# (kdkit's name, fairseq's)
_FAIRSEQ = (
    (r"^front_end\.cnn\.convs\.(\d+)\.", r"feature_extractor.conv_layers.\1.0."),
    (r"^front_end\.cnn\.norm\.", "feature_extractor.conv_layers.0.2."),
    (r"^front_end\.norm\.", "layer_norm."),
    (r"^front_end\.projection\.", "post_extract_proj."),
    (r"^encoder\.positions\.conv\.", "encoder.pos_conv.0."),
    (r"^encoder\.norm\.", "encoder.layer_norm."),
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
    (r"\.attention\.out\.", ".self_attn.out_proj."),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"\.norm2\.", ".final_layer_norm."),
    (r"\.ffn_in\.", ".fc1."),
    (r"\.ffn_out\.", ".fc2."),
)
_SCALED = re.compile(r"\.(attention\.out|ffn_out)\.")


def without_residual_scale(model: SpeechModel) -> SpeechModel:
    """The same function without DeepNorm's residual scale, which no published form has: divided out of the branches.

    Nor does a published form say how much dropout there was: what is read from one has the default.
    """
    plain = SpeechModel(replace(model.config, residual_scale=1.0, dropout=ModelConfig.dropout))
    scale = model.config.residual_scale
    plain.load_state_dict({n: t / scale if _SCALED.search(n) else t for n, t in model.state_dict().items()})
    return plain.requires_grad_(False).eval()


def fairseq_tensors(model: SpeechModel, codebook: Codebook) -> dict[str, Tensor]:
    tensors = {}
    for name, tensor in model.state_dict().items():
        for pattern, theirs in _FAIRSEQ:
            name = re.sub(pattern, theirs, name)
        if ".attention.qkv." in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                tensors[name.replace(".attention.qkv.", f".self_attn.{letter}_proj.")] = part.contiguous()
        else:
            tensors[name] = tensor
    specials = torch.zeros(4, codebook.label_embeddings.shape[1])  # of fairseq's dictionary
    tensors["label_embs_concat"] = torch.cat([specials, codebook.label_embeddings])
    tensors |= {f"final_proj.{name}": t for name, t in codebook.final_proj.state_dict().items()}
    return tensors


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
    with foreign_module("fairseq.data.dictionary", Dictionary):
        state = {"dictionaries": [Dictionary(len(codebook.label_embeddings))]}
        content = {"model": fairseq_tensors(model, codebook), "cfg": {"model": settings, "task": task}}
        torch.save(content | {"task_state": state, "extra_state": {"epoch": 1}}, path)
    return path


def hub_folder(site: Path, model: SpeechModel) -> None:
    """The files of DistilHuBERT's repository, and what the hub's API says of them."""
    files = site / FINISHED / "resolve" / COMMIT
    with tempfile.TemporaryDirectory() as folder:
        exported = export_huggingface(CTCModel(model), Path(folder))
        config = json.loads((exported / "config.json").read_text())
        sound = (exported / "preprocessor_config.json").read_text()
    tensors = {}
    for name, tensor in fairseq_tensors(model, Codebook(model.config.dim, 4)).items():
        for pattern, theirs in _HUB:
            name = re.sub(pattern, theirs, name)
        if not name.startswith(("label_embs", "final_proj")):
            tensors[name] = tensor
    files.mkdir(parents=True)
    torch.save(tensors, files / "pytorch_model.bin")
    described = {"architectures": ["HubertModel"], "vocab_size": 32}
    (files / "config.json").write_text(json.dumps(config | described))
    (files / "preprocessor_config.json").write_text(sound)
    weights = files / "pytorch_model.bin"
    large = {"sha256": sha256_of(weights), "size": weights.stat().st_size, "pointerSize": 134}
    siblings = [
        {"rfilename": path.name} | ({"lfs": large} if path == weights else {}) for path in files.iterdir()
    ]
    about = site / "api/models" / FINISHED / "revision/main"
    about.parent.mkdir(parents=True)
    about.write_text(json.dumps({"id": FINISHED, "sha": COMMIT, "siblings": siblings}))


_HUB = (  # (fairseq's name, transformers')
    (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"^(feature_extractor\.conv_layers\.0)\.2\.", r"\1.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)

# --- their server -------------------------------------------------------------------------------------------


class Site:
    """Serves a folder on 127.0.0.1 with range requests. ``asked``: (path, Range) of every request so far.

    ``broken[path]``: the next answer for that file ends after so many bytes, and further ones do not come at all, until
    the entry is removed.
    """

    def __init__(self, folder: Path):
        self.folder, self.asked, self.broken = folder, [], {}
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path, begin = self.path.partition("?")[0].strip("/"), 0
                asked = self.headers.get("Range")
                site.asked.append((path, asked))
                file = site.folder / path
                if not file.is_file():
                    self.send_error(404)
                    return
                data, tag = file.read_bytes(), f'"{sha256_of(file)}"'
                if asked and self.headers.get("If-Range") == tag:
                    begin = int(asked.removeprefix("bytes=").rstrip("-"))
                left = site.broken.get(path, len(data))
                if left == 0:
                    self.close_connection = True
                    return
                site.broken |= {path: 0} if path in site.broken else {}
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(data) - begin))
                if begin:
                    self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
                self.send_header("ETag", tag)
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(data[begin : begin + left])

            def do_HEAD(self):
                file = site.folder / self.path.partition("?")[0].strip("/")
                if not file.is_file():
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(file.stat().st_size))
                self.send_header("ETag", f'"{sha256_of(file)}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@contextlib.contextmanager
def instead_of_the_network(site: Site, cache: Path) -> Iterator[None]:
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
