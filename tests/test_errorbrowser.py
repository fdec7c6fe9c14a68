"""The error browser: what it shows, that it needs no network and no script, that sound is in it; and in a report."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile
from contrast import TEXT, contrast

from kdkit.common.errors import TextError
from kdkit.lessons.plots.style import DARK_PAPER
from kdkit.lessons.results import Results
from kdkit.recognition.error_browser import error_browser, write_error_browser
from kdkit.recognition.wer import score
from kdkit.speech.audio import write_audio
from kdkit.speech.manifest import Utterance

REFERENCES = ["the cat sat", "a dog", "one two three four"]
HYPOTHESES = ["the cat sat", "a <frog", "one too four five"]


@pytest.fixture
def utterances(tmp_path):
    found = []
    for i, text in enumerate(REFERENCES):
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8000 * (i + 1)) / 16_000)
        write_audio(tmp_path / f"{i}.wav", tone.astype(np.float32))
        found.append(Utterance(f"u{i}", tmp_path / f"{i}.wav", (i + 1) / 2, text, "peter" if i else "maria"))
    return found


def test_every_word_is_shown_with_its_kind_and_escaped(utterances):
    html = error_browser(score(REFERENCES, HYPOTHESES), utterances, "A test & more", sound=False)
    words = re.findall(
        r'class="word (\w+)" title="\1"><span class="said">(.*?)</span><span class="written">(.*?)</span>',
        html,
    )
    assert ("substitution", "dog", "&lt;frog") in words
    assert ("substitution", "two", "too") in words and ("equal", "cat", "cat") in words
    assert [kind for kind, _, _ in words].count("equal") == 5
    assert "A test &amp; more" in html and "<b>frog" not in html
    assert "<script" not in html and not re.search(r"""(?:src|href)=["'](?:https?:)?//""", html)
    assert "WER 66.7 % of 6 words" in html  # peter
    assert "two → too" in html


def test_the_worst_come_first_and_only_as_many_as_wanted(utterances):
    result = score(REFERENCES, HYPOTHESES)
    shown = lambda **options: re.findall(r'about">(u\d),', error_browser(result, utterances, "t", **options))  # noqa: E731
    assert shown() == ["u2", "u1", "u0"]
    assert shown(limit=1) == ["u2"]
    assert shown(order="given") == ["u0", "u1", "u2"]
    with pytest.raises(TextError, match="worst, given"):
        shown(order="best")


def test_filters_hide_articles_without_that_kind(utterances):
    html = error_browser(score(REFERENCES, HYPOTHESES), utterances, "t", sound=False)
    classes = dict(zip(("u2", "u1", "u0"), re.findall(r'<article class="(.*?)">', html), strict=True))
    assert classes["u0"] == "" and classes["u1"] == "has-substitution"
    name = re.search(r'<div class="errors" id="(.*?)"', html)[1]
    for kind in ("substitution", "deletion", "insertion"):
        assert f"#{name}:has(.pick-{kind}:checked) article:not(.has-{kind})" in html
        assert f'name="{name}" class="pick-{kind}"' in html


def test_the_sound_is_in_the_page_and_a_missing_file_is_said(utterances):
    utterances[1].audio.unlink()
    html = error_browser(score(REFERENCES, HYPOTHESES), utterances, "t", order="given")
    players = re.findall(r'src="data:audio/mpeg;base64,(.*?)"', html)
    lengths = [len(soundfile.read(io.BytesIO(base64.b64decode(data)))[0]) for data in players]
    assert lengths == [pytest.approx(8000, abs=2500), pytest.approx(24_000, abs=2500)]
    assert html.count("no sound: ") == 1 and "no such audio file" in html


def test_other_utterances_are_refused(utterances):
    with pytest.raises(TextError, match="other texts"):
        error_browser(score(REFERENCES, HYPOTHESES), utterances[::-1], "t")


def test_a_page_of_its_own_and_in_a_report(utterances, tmp_path):
    from kdkit.report.index_page import write_index
    from kdkit.report.record import new_entry, provenance

    result = score(REFERENCES, HYPOTHESES)
    write_error_browser(tmp_path / "e" / "errors.html", result, utterances, title="Errors", limit=2)
    text = (tmp_path / "e" / "errors.html").read_text(encoding="utf-8")
    assert text.startswith('<!doctype html><meta charset="utf-8">') and text.count("<article") == 2

    results = Results(tmp_path / "run", "04_x", title="X", profile="quick", seed=0)
    results.page("errors", error_browser(result, utterances, "Errors"), "All errors")
    record = results._record
    kept = tmp_path / "run" / record["items"][0]["file"]
    assert kept.parent == tmp_path / "run" / "pages" / "04_x" and "two" in kept.read_text(encoding="utf-8")
    notebook = new_entry("04_x", "X") | {"status": "done", "seconds": 1.0}
    run = {"profile": "quick", "seed": 0, "notebooks": [notebook], "parameters": {}, "status": "done"}
    run |= {"started": "2026-05-04T10:00:00+02:00", "ended": None, "seconds": 1.0, **provenance()}
    write_index(tmp_path / "run", run, {"04_x": record})
    index = (tmp_path / "run" / "index.html").read_text(encoding="utf-8")
    assert index.count("<article") == 3 and "All errors" in index and index.count("<!doctype") <= 1
    assert 'href="pages/04_x/errors.html"' in index


def test_words_can_be_read_on_light_and_dark_pages(utterances):
    html = error_browser(score(REFERENCES, HYPOTHESES), utterances, "A test", sound=False)
    themes = [dict(re.findall(r"--(\w+): (#\w+)", rule)) for rule in re.findall(r"\.errors \{[^}]*\}", html)]
    assert len(themes) == 2 and themes[0].keys() == themes[1].keys()
    for theme in themes:
        assert all(contrast(theme[name], theme["paper"]) >= TEXT for name in ("ink", "soft", "wrong", "more"))
    assert contrast(themes[1]["ink"], DARK_PAPER) >= TEXT, "what stands outside of the boxes"
