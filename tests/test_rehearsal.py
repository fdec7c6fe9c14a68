"""The real world's whole path, from archives to error rates, on stand-ins that are served on this machine."""

import gzip
import shutil

import pytest
import standins
from rehearse import Size, rehearse

from kdkit.common.errors import ConfigError, DownloadError
from kdkit.common.files import md5_of
from kdkit.lessons.speech_sources import manifest_of
from kdkit.lessons.worlds import LIBRISPEECH
from kdkit.speech.corpora import librispeech_lm


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """Folder of a rehearsal, and its numbers in the real world and in the toy world."""
    out = tmp_path_factory.mktemp("rehearsal")
    return out, *rehearse(out, Size(unlabelled=0.5, labelled=0.2, dev=0.1, test=0.2, steps=3))


def test_the_real_world_gives_the_numbers_of_the_toy_world(rehearsed):
    out, real, toy = rehearsed
    assert real == toy
    assert {"distil/3/loss", "swap/3/loss", "fine-tune/dev", "greedy/test-clean/wer"} <= set(real)
    assert real["distil/3/loss"] < real["distil/1/loss"]
    arpa = out / "cache" / "librispeech-lm" / f"{standins.LM}.arpa"
    if arpa.exists():  # where beam search is installed
        assert arpa.read_bytes() == (out / "site" / "toy.arpa").read_bytes()


def test_an_archive_that_changed_is_refused_and_nothing_finished_is_lost(rehearsed, tmp_path):
    out, *_ = rehearsed
    folder = shutil.copytree(out / "site", tmp_path / "site")
    site = standins.Server(folder)
    try:
        with standins.instead_of_the_network(site, tmp_path / "cache"):
            before = LIBRISPEECH.speech("dev", 1)
            archive = folder / standins.OPENSLR_12 / "test-clean.tar.gz"
            archive.write_bytes(archive.read_bytes()[::-1])
            with pytest.raises(DownloadError, match=r"test-clean\.tar\.gz.*SHA-256"):
                LIBRISPEECH.speech("test-clean", 1)
            assert LIBRISPEECH.speech("dev", 1) == before
            assert not manifest_of("librispeech", "test-clean").exists()
    finally:
        site.close()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder with a language model and a lexicon in the published form, taken for the real ones."""
    arpa = tmp_path / "lm.arpa"
    entries = "-99\t<s>\t-0.5\n-1\t<unk>\n-1\t</s>\n-0.5\tit's\t-0.25\n"
    arpa.write_text(f"\\data\\\nngram 1=4\n\n\\1-grams:\n{entries}\n\\end\\\n")
    standins.language_model(tmp_path, arpa, ["it's", "a"])
    folder = tmp_path / standins.OPENSLR_11
    archive, lexicon = folder / f"{standins.LM}.arpa.gz", folder / librispeech_lm.LEXICON
    known = librispeech_lm.Published(md5_of(archive), 1, 1)
    monkeypatch.setitem(librispeech_lm.MODELS, standins.LM, known)
    monkeypatch.setattr(librispeech_lm, "LEXICON_MD5", md5_of(lexicon))
    return folder, arpa


def test_a_language_model_in_capitals_becomes_one_in_lower_case(published, tmp_path):
    folder, arpa = published
    assert b"<UNK>" in gzip.decompress((folder / f"{standins.LM}.arpa.gz").read_bytes())
    made = librispeech_lm.language_model(folder, standins.LM, tmp_path / "out", fetch=False)
    assert made.read_text() == arpa.read_text()
    words = librispeech_lm.words(folder, tmp_path / "out", fetch=False)
    assert words.read_text() == "a\nit's\n"


def test_a_language_model_that_is_damaged_or_missing_is_refused(published, tmp_path, monkeypatch):
    folder, _ = published
    archive = folder / f"{standins.LM}.arpa.gz"
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(DownloadError, match="MD5"):
        librispeech_lm.language_model(folder, standins.LM, tmp_path / "out")
    known = librispeech_lm.Published(md5_of(archive), 1, 1)
    monkeypatch.setitem(librispeech_lm.MODELS, standins.LM, known)
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        librispeech_lm.language_model(folder, standins.LM, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.arpa"))
    with pytest.raises(ConfigError, match="not found"):
        librispeech_lm.language_model(tmp_path / "empty", standins.LM, tmp_path / "out", fetch=False)
    with pytest.raises(ConfigError, match=r"no language model '5-gram'; there are 3-gram\.pruned\.3e-7"):
        librispeech_lm.language_model(folder, "5-gram", tmp_path / "out")
