"""LibriSpeech, and Libri-Light's limited supervision: read books, in LibriSpeech's layout.

    LibriSpeech/dev-clean/84/121123/84-121123-0000.flac   speaker 84, chapter 121123
    LibriSpeech/dev-clean/84/121123/84-121123.trans.txt   a line for each: 84-121123-0000 GO DO YOU HEAR

    librispeech_finetuning/1h/0 ... 5/{clean,other}/...   six folds of ten minutes
    librispeech_finetuning/9h/{clean,other}/...           10 h = 9h and 1h; phones/ is not used

An existing folder, such as a download of torchaudio's, is used as it is. Sources: Panayotov et al. 2015
(openslr.org/12, CC BY 4.0); Kahn et al. 2020 (github.com/facebookresearch/libri-light); the checksums are those
that torchaudio publishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdkit.common.downloads import download, unpack
from kdkit.common.errors import ConfigError, ManifestError
from kdkit.speech.corpora.prepare import Found, intake
from kdkit.speech.folders import contents
from kdkit.speech.manifest import Utterance

SUBSETS = {  # and the SHA-256 of their archives
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
}
URL = "https://www.openslr.org/resources/12"
LIMITED_URL = "https://dl.fbaipublicfiles.com/librilight/data/librispeech_finetuning.tgz"
LIMITED_SHA256 = "5d1efdc777b548194d7e09ba89126e2188026df9fd57aa57eb14408d2b2342af"
FOLDS = tuple(range(6))  # of ten minutes each


def librispeech(root: str | Path, subset: str, fetch: bool = True) -> list[Found]:
    """The utterances of a subset such as "dev-clean" in or below ``root``; ids and speakers are LibriSpeech's.

    Looked for as ROOT/LibriSpeech/SUBSET and ROOT/SUBSET; with ``fetch`` it is downloaded to the former if it is in
    neither. Raises ConfigError for an unknown or missing subset, DownloadError when the download fails.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"LibriSpeech has no subset {subset!r}; there are {', '.join(SUBSETS)}")
    root = Path(root)
    folder = root / "LibriSpeech" / subset
    places = (folder, root / subset)
    for place in places:
        if place.is_dir():
            return read_books(place)
    if not fetch:
        raise ConfigError(
            f"{subset}: not found at {' or '.join(map(str, places))}; name the folder that holds it"
        )
    archive = download(f"{URL}/{subset}.tar.gz", root / f"{subset}.tar.gz", SUBSETS[subset])
    return read_books(unpack(archive, folder, f"LibriSpeech/{subset}"))


def limited_supervision(root: str | Path, fetch: bool = True) -> dict[str, list[Found]]:
    """Libri-Light's label budgets: "10min-0" to "10min-5" (the folds), "1h" (all folds) and "10h" ("1h" and 9h).

    ``root`` is ``librispeech_finetuning`` or the folder that holds it. "10min-0" is what most papers, and torchaudio,
    call the ten-minute set. Raises ConfigError when a fold is missing, DownloadError when the download fails.
    """
    root = Path(root)
    folder = root if (root / "1h").is_dir() else root / "librispeech_finetuning"
    if not folder.is_dir():
        if not fetch:
            raise ConfigError(f"{folder}: not found; name librispeech_finetuning or the folder that holds it")
        archive = download(LIMITED_URL, root / "librispeech_finetuning.tgz", LIMITED_SHA256)
        unpack(archive, folder, "librispeech_finetuning")
    missing = [f"1h/{fold}" for fold in FOLDS if not (folder / "1h" / str(fold)).is_dir()]
    missing += ["9h"] if not (folder / "9h").is_dir() else []
    if missing:
        raise ConfigError(f"{folder}: {', '.join(missing)} missing; unpack librispeech_finetuning.tgz again")
    budgets = {f"10min-{fold}": read_books(folder / "1h" / str(fold)) for fold in FOLDS}
    hour = [item for fold in FOLDS for item in budgets[f"10min-{fold}"]]
    return budgets | {"1h": hour, "10h": hour + read_books(folder / "9h")}


def budget_splits(
    budgets: Mapping[str, list[Found]], quick: bool = False
) -> tuple[dict[str, list[Utterance]], list[tuple[str, str]]]:
    """Utterances of :func:`limited_supervision`'s budgets, every recording read once, and the files that are bad."""
    (taken,) = intake({"10h": budgets["10h"]}, quick=quick).values()
    ids = {name: {item.id for item in found} for name, found in budgets.items()}
    return {name: [u for u in taken.utterances if u.id in ids[name]] for name in budgets}, taken.bad


def read_books(folder: Path) -> list[Found]:
    """Every .flac below a folder with its line of the chapter's .trans.txt; the speaker is the id's first number.

    A recording without a line is rejected; a line without a recording is ignored, because the folds of Libri-Light are
    parts of chapters. Raises ManifestError for a folder without recordings.
    """
    chapters: dict[Path, dict[str, str]] = {}
    found = []
    for audio in contents(folder, (".flac",)).audio:
        chapter, speaker = audio.parent, audio.stem.partition("-")[0]
        if chapter not in chapters:
            chapters[chapter] = transcripts(chapter)
        text, trouble = line_of(audio, chapters[chapter])
        found.append(Found(audio.stem, audio, text, speaker, trouble=trouble))
    if not found:
        raise ManifestError(f"{folder}: no .flac file anywhere below; is this a folder of LibriSpeech?")
    return found


def line_of(audio: Path, lines: Mapping[str, str]) -> tuple[str, str]:
    """(text, trouble) of a recording from the lines of its chapter."""
    text = lines.get(audio.stem, "")
    return text, "" if text else f"{audio}: no line for it in a .trans.txt beside it that can be read"


def transcripts(chapter: Path) -> dict[str, str]:
    """{id: text} of a chapter's .trans.txt; bytes that are not UTF-8 become \ufffd.

    A file that cannot be opened, or is not a regular file, has no lines.
    """
    texts = {}
    for path in sorted(chapter.glob("*.trans.txt")):
        try:
            whole = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
        except OSError:
            continue
        for line in whole.split("\n"):
            name, _, text = line.strip().partition(" ")
            if name:
                texts[name] = text.strip()
    return texts
