"""LibriSpeech's language models and its lexicon, as texts that kdkit's beam search reads.

Estimated by LibriSpeech's authors from 14,500 books without those of the test sets (openslr.org/11, public domain):

    3-gram.pruned.3e-7.arpa.gz   and 1e-7, and the whole 3-gram and 4-gram, all over the same 200,000 words
    librispeech-lexicon.txt      a word and its phones on each line: A  AH0; kdkit takes the words

Words there are in capitals, and in kdkit's transcripts in lower case: that is all that is changed. The MD5 checksums
are those that published recipes check (three copies of them agree); no other checksum is published. Sizes are about.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdkit.common.downloads import download
from kdkit.common.errors import ConfigError, DownloadError
from kdkit.common.files import write_atomically, write_text

URL = "https://www.openslr.org/resources/11"
LEXICON = "librispeech-lexicon.txt"
LEXICON_MD5 = "28f72663f6bfed7cd346283c064c315b"


@dataclass(frozen=True)
class Published:
    """A language model: MD5 of its archive, MB to download, and MB that the text takes."""

    md5: str
    megabytes: int
    unpacked: int


MODELS = {
    "3-gram.pruned.3e-7": Published("8f67ec741827742eee05799ab7605b50", 13, 50),
    "3-gram.pruned.1e-7": Published("9a0f1325bcaf3a0f7b7be4be10823c2a", 34, 130),
    "3-gram": Published("74cbb837e582378c26c602e1c8cbcb9c", 760, 2_600),
    "4-gram": Published("6abdcd5b055bd482e4f9defe91d40408", 1_350, 4_500),
}


def language_model(root: str | Path, name: str, out: str | Path, fetch: bool = True) -> Path:
    """OUT/NAME.arpa: the model ``name`` of :data:`MODELS` in lower case, made once.

    ``root`` is the folder that holds, or shall hold, NAME.arpa.gz. Raises :class:`ConfigError` for an unknown name, or
    for a file that is not there with ``fetch=False``, and :class:`DownloadError` when it cannot be had or is damaged.
    """
    if name not in MODELS:
        raise ConfigError(f"LibriSpeech has no language model {name!r}; there are {', '.join(MODELS)}")
    path = Path(out) / f"{name}.arpa"
    if not path.is_file():
        archive = _file(root, f"{name}.arpa.gz", MODELS[name].md5, fetch)
        write_atomically(path, lambda temporary: _lower_case(archive, temporary))
    return path


def words(root: str | Path, out: str | Path, fetch: bool = True) -> Path:
    """OUT/words.txt: the words of LibriSpeech's lexicon in lower case, sorted, one a line. Raises as
    :func:`language_model`.
    """
    path = Path(out) / "words.txt"
    if not path.is_file():
        text = _file(root, LEXICON, LEXICON_MD5, fetch).read_text(encoding="utf-8")
        # a word with several pronunciations has several lines
        write_text(
            path, "\n".join(sorted({line.split()[0].lower() for line in text.splitlines() if line})) + "\n"
        )
    return path


def _file(root: str | Path, name: str, md5: str, fetch: bool) -> Path:
    path = Path(root) / name
    if not fetch and not path.is_file():
        raise ConfigError(f"{path}: not found; name the folder that holds it, or let it be downloaded")
    return download(f"{URL}/{name}", path, md5=md5)


def _lower_case(archive: Path, path: Path) -> None:
    """Line by line, so that gigabytes need no memory. <UNK> becomes <unk>, KenLM's word; numbers stay as written."""
    with _whole(archive) as lines, open(path, "w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line.lower())


@contextmanager
def _whole(archive: Path) -> Iterator[Iterator[str]]:
    try:
        with gzip.open(archive, "rt", encoding="utf-8", newline="\n") as lines:
            yield lines
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DownloadError(
            f"{archive}: cannot be unpacked ({error}); remove it and download it again"
        ) from error
