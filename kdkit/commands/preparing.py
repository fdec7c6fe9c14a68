"""``kdkit prepare``: real speech, downloaded or your own, checked and written as manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import Commands, app
from kdkit.commands.options import Seed, folder_option
from kdkit.common.errors import ConfigError

prepare = Commands(
    help="Make manifests of real speech: every file is read, bad ones are reported, splits share no speakers.",
    no_args_is_help=True,
)
app.add_typer(prepare, name="prepare")

Out = Annotated[Path, folder_option("Folder for the manifests, one for each split.")]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder of the corpus, or for its download; default: $KDKIT_CACHE."),
]
Download = Annotated[bool, typer.Option(help="Download what is missing.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Read only the headers of audio files, not all of them.")
]
Numbers = Annotated[
    bool,
    typer.Option(
        "--spell-numbers", help="Spell numbers and signs out: 42 as forty two, $5 as five dollars, & as and."
    ),
]
Overlap = Annotated[
    bool, typer.Option("--allow-speaker-overlap", help="Accept test speakers that are in training, too.")
]
DevShare = Annotated[
    float, typer.Option(min=0, max=0.9, help="Share of speech without splits that goes to dev.")
]
TestShare = Annotated[float, typer.Option(min=0, max=0.9, help="The same for test. Whole speakers move.")]


@prepare.command(
    "librispeech",
    epilog="Example: kdkit prepare librispeech --subset train-clean-100 --subset dev-clean --subset test-clean --out "
    "data/librispeech",
)
def librispeech_command(
    out: Out,
    subset: Annotated[list[str], typer.Option(help="Subset of LibriSpeech; repeat for more.")],
    root: Root = None,
    download: Download = True,
    quick: Quick = False,
) -> None:
    """LibriSpeech, downloaded or in a folder that you have."""
    from kdkit.speech.corpora.librispeech import librispeech
    from kdkit.speech.corpora.prepare import as_splits, intake, publish

    found = {name: librispeech(_root(root), name, download) for name in subset}
    publish(*as_splits(intake(found, quick=quick)), out)


@prepare.command("librilight", epilog="Example: kdkit prepare librilight --out data/librilight")
def librilight_command(out: Out, root: Root = None, download: Download = True, quick: Quick = False) -> None:
    """Libri-Light's label budgets: six folds of 10 minutes, 1 hour, 10 hours.

    For dev and test: kdkit prepare librispeech.
    """
    from kdkit.speech.corpora.librispeech import budget_splits, limited_supervision
    from kdkit.speech.corpora.prepare import publish

    publish(*budget_splits(limited_supervision(_root(root), download), quick), out)


@prepare.command(
    "librispeech-lm", epilog="Example: kdkit prepare librispeech-lm --model 3-gram.pruned.1e-7 --out data/lm"
)
def librispeech_lm_command(
    out: Annotated[Path, folder_option("Folder for the language model and its words.")],
    model: Annotated[
        str, typer.Option(help="3-gram.pruned.3e-7 (13 MB), 3-gram.pruned.1e-7, 3-gram or 4-gram (1.3 GB).")
    ] = "3-gram.pruned.3e-7",
    root: Root = None,
    download: Download = True,
) -> None:
    """LibriSpeech's language models and lexicon, for kdkit evaluate --lm OUT/MODEL.arpa --lexicon OUT/words.txt."""
    from kdkit.speech.corpora.librispeech_lm import language_model, words

    print(f"language model: {language_model(_root(root, 'librispeech-lm'), model, out, download)}")
    print(f"lexicon: {words(_root(root, 'librispeech-lm'), out, download)}")


@prepare.command("fsdd", epilog="Example: kdkit prepare fsdd --test-speaker theo --out data/digits")
def fsdd_command(
    out: Out,
    root: Root = None,
    test_speaker: Annotated[
        list[str] | None, typer.Option(help="Speaker who is never heard in training; repeat for more.")
    ] = None,
    shortest: Annotated[int, typer.Option(min=1, help="Digits in the shortest string.")] = 3,
    longest: Annotated[int, typer.Option(min=1, help="Digits in the longest string.")] = 7,
    passes: Annotated[
        int, typer.Option(min=1, help="How often a recording is used in training strings.")
    ] = 1,
    download: Download = True,
    seed: Seed = 0,
) -> None:
    """The Free Spoken Digit Dataset: people saying digits.

    Two corpora come out: single digits (digits-train, -dev, -test), and connected digit strings made of them
    (strings-train, -dev, -test). The test speaker, theo unless told otherwise, is in no other split.
    """
    from kdkit.speech.corpora.fsdd import fsdd, join_digits, split_digits
    from kdkit.speech.corpora.prepare import check_folder, intake, publish

    (taken,) = intake({"digits": fsdd(_root(root, "fsdd"), download)}).values()
    splits = split_digits(taken.utterances, test_speaker or ["theo"])
    digits = {f"digits-{name}": some for name, some in splits.items()}
    check_folder(out, digits, written=[f"strings-{name}" for name in splits])  # before any audio is written
    strings = {
        f"strings-{name}": join_digits(
            some,
            out / "audio" / name,
            (shortest, longest),
            passes=passes if name == "train" else 1,
            seed=seed,
        )
        for name, some in splits.items()
    }
    publish(digits | strings, taken.bad, out)


@prepare.command("folder", epilog="Example: kdkit prepare folder recordings --out data/mine")
def folder_command(
    folder: Annotated[Path, typer.Argument(help="Audio files, each with a .txt of the same name beside it.")],
    out: Out,
    speaker_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression whose first group finds the speaker in a path: '([a-z]+)_'."),
    ] = None,
    dev: DevShare = 0.1,
    test: TestShare = 0.1,
    spell_numbers: Numbers = False,
    allow_speaker_overlap: Overlap = False,
    quick: Quick = False,
) -> None:
    """A folder of your own: audio files with text files beside them.

    Folders called train, dev and test in it are splits; without them, whole speakers are held out. A speaker is a
    folder, or what --speaker-pattern finds. The trees of LibriSpeech and TIMIT are known.
    """
    from kdkit.speech.corpora.folders import read_folder, speaker_note
    from kdkit.speech.corpora.prepare import as_splits, intake, publish
    from kdkit.speech.folders import contents

    found = read_folder(folder, speaker_pattern)
    taken = intake(found, spell_numbers, quick)
    splits, bad = _divided(taken, dev, test, allow_speaker_overlap) if "" in found else as_splits(taken)
    publish(splits, bad, out, allow_speaker_overlap, contents(folder).passed_over())
    note = speaker_note(found) if speaker_pattern is None else ""
    if note:
        print(f"note: {note}")


@prepare.command(
    "table",
    epilog="Examples: kdkit prepare table cv/en/train.tsv cv/en/dev.tsv cv/en/test.tsv --out data/cv"
    "\n\nkdkit prepare table list.csv --audio-folder recordings --text-column words --out data/mine",
)
def table_command(
    tables: Annotated[
        list[Path], typer.Argument(help="CSV, TSV or JSON lines; several are splits, by name.")
    ],
    out: Out,
    audio_folder: Annotated[
        Path | None,
        typer.Option(help="Where the audio files are; default: clips/ beside the table, or the table's."),
    ] = None,
    audio_column: Annotated[
        str | None, typer.Option(help="Column with the audio file; known: path, audio ...")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column with the text; known: sentence, text ...")
    ] = None,
    speaker_column: Annotated[
        str | None, typer.Option(help="The same for the speaker; known: client_id ...")
    ] = None,
    start_column: Annotated[
        str | None,
        typer.Option(help="Where a row is a piece of its file: seconds of its start; known: start ..."),
    ] = None,
    end_column: Annotated[str | None, typer.Option(help="The same for its end; known: end ...")] = None,
    dev: DevShare = 0.1,
    test: TestShare = 0.1,
    spell_numbers: Numbers = False,
    allow_speaker_overlap: Overlap = False,
    quick: Quick = False,
) -> None:
    """Tables with columns for audio, text and speaker; Common Voice's are known.

    Several tables, or a column "split", give the splits; of a single one, whole speakers are held out. Rows with a
    start and an end are pieces of their files: they are cut out and written to OUT/audio.
    """
    from kdkit.speech.corpora.pieces import cut_out
    from kdkit.speech.corpora.prepare import as_splits, intake, publish
    from kdkit.speech.corpora.tables import read_table

    columns = {"audio": audio_column, "text": text_column, "speaker": speaker_column}
    columns |= {"start": start_column, "end": end_column}
    found: dict[str, list] = {}
    for table in tables:
        for name, rows in read_table(table, audio_folder, columns).items():
            if name in found:
                raise ConfigError(f"{table}: a second source for split {name!r}; give every split one table")
            found[name] = rows
    with cut_out(found, out / "audio") as whole:
        taken = intake(whole, spell_numbers, quick)
        splits, bad = (
            _divided(taken, dev, test, allow_speaker_overlap) if len(found) == 1 else as_splits(taken)
        )
        publish(splits, bad, out, allow_speaker_overlap)


@prepare.command("check", epilog="Example: kdkit prepare check data/mine/train.jsonl data/mine/test.jsonl")
def check_command(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests of one corpus.")],
    allow_speaker_overlap: Overlap = False,
    quick: Quick = False,
) -> None:
    """Open every file of manifests and say what is in them; exit status 1 if something is wrong."""
    from kdkit.speech.corpora.prepare import check_manifests

    if not check_manifests(manifests, quick, allow_speaker_overlap):
        raise typer.Exit(1)


def _root(root: Path | None, below: str = "") -> Path:
    from kdkit.common.files import cache_folder

    return root or cache_folder() / below


def _divided(taken: dict, dev: float, test: float, allow_overlap: bool) -> tuple[dict, list]:
    """Speech that came without splits, divided by speakers."""
    from kdkit.speech.corpora.summary import split_by_speaker

    (one,) = taken.values()
    return split_by_speaker(one.utterances, dev, test, allow_overlap), one.bad
