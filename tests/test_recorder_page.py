"""The recorder's script in a real browser with a fake microphone, on a page of its own instead of a notebook."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soxr

from kdkit.lessons.widgets import recorder
from kdkit.speech.audio import write_audio

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
PAGE = """<!doctype html><body style="background: white"><div id="here"></div><script type="module">
  import widget from "./recorder.js";
  window.state = { limit: 1.2, said: "Press Record", problem: false, has_sound: false };
  window.sent = [];
  window.changed = () => {};
  const model = {
    get: (name) => state[name],
    on: (event, does) => { window.changed = does; }, off: () => {},
    send: (content, _, buffers) => sent.push([content, buffers && Array.from(new Float32Array(buffers[0]))]),
  };
  window.leave = widget.render({ model, el: document.getElementById("here") });
</script></body>"""

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium (see .ci/run)"
)


def chirp(seconds: float = 1.5) -> np.ndarray:
    """A tone that rises from 200 to 3,000 Hz: no piece of it looks like another."""
    t = np.arange(round(16_000 * seconds)) / 16_000
    return (0.5 * np.sin(2 * np.pi * (200 + 1_400 * t / seconds) * t)).astype(np.float32)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that a server shows, with the script, a page, and what the microphone hears: (port, folder)."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(Path(recorder.__file__).with_suffix(".js"), folder)
    (folder / "page.html").write_text(PAGE)
    (folder / "frame.html").write_text("<script>onload = () => document.body.innerHTML = "
        "`<iframe src='http://127.0.0.1:${location.port}/page.html'></iframe>`</script>")  # fmt: skip
    write_audio(folder / "voice.wav", chirp())

    class Silently(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silently, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], folder
    server.shutdown()


@pytest.fixture(scope="module")
def playing():
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(site, playing):
    """A browser whose microphone plays voice.wav, once its page may use it."""
    flags = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={site[1]}/voice.wav"]
    flags.append("--host-resolver-rules=MAP lab.example 127.0.0.1")
    started = playing.chromium.launch(executable_path=CHROMIUM, args=QUIET + flags)
    yield started
    started.close()


@pytest.fixture
def open_page(site, browser):
    """Function: a new page with the recorder."""
    contexts = []

    def opened(host="localhost", permissions=("microphone",), before="", file="page.html"):
        contexts.append(browser.new_context(permissions=list(permissions)))
        page = contexts[-1].new_page()
        page.add_init_script(before)
        page.goto(f"http://{host}:{site[0]}/{file}")
        return page

    yield opened
    for context in contexts:
        context.close()


def said(page) -> str:
    return page.get_by_role("status").inner_text()


def sound(page) -> tuple[dict, np.ndarray]:
    """The last recording: what was said of it, and its samples at 16 kHz."""
    sent = [(content, samples) for content, samples in page.evaluate("sent") if content["kind"] == "sound"]
    assert [content["part"] for content, _ in sent] == list(range(sent[0][0]["parts"]))
    samples = np.concatenate([np.array(samples, np.float32) for _, samples in sent])
    return sent[0][0], soxr.resample(samples, sent[0][0]["rate"], 16_000)


def likeness(heard: np.ndarray, spoken: np.ndarray) -> float:
    """Largest normalised correlation of ``spoken`` with a piece of ``heard``."""
    n = 1 << (len(heard) + len(spoken)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(spoken, n)), n)[: len(heard)]
    energy = np.convolve(heard**2, np.ones(len(spoken)))[len(spoken) - 1 :]
    return float(np.max(product[: len(energy)] / np.sqrt(energy.clip(1e-9) * (spoken**2).sum())))


def test_it_records_what_the_microphone_hears_by_keyboard_alone(open_page):
    page = open_page()
    record = page.get_by_role("group", name="Record your own voice").get_by_role("button", name="Record")
    page.keyboard.press("Tab")
    assert record.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    page.wait_for_function("/Recording: .* [1-9.]+ of 1.2 s/.test(document.querySelector('p').textContent)")
    assert page.get_by_label("level of the microphone in decibels").is_visible()
    page.keyboard.press("Enter")
    page.wait_for_function("sent.length > 0")
    about, heard = sound(page)
    assert about["seconds"] == pytest.approx(len(heard) / 16_000, abs=0.01) and 0.1 < about["seconds"] < 1.5
    assert np.abs(heard).max() > 0.2, "the microphone's own sound, not silence"
    assert page.get_by_role("button", name="Record").is_enabled() and "The kernel reads it" in said(page)
    assert page.get_by_label("your recording").is_visible()
    assert page.get_by_role("button", name="Save").is_disabled(), "nothing is there before the kernel says so"
    page.evaluate("Object.assign(state, { has_sound: true, said: '1.2 s of speech.' }); changed()")
    assert said(page) == "1.2 s of speech."
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Forget").click()
    assert [content["kind"] for content, _ in page.evaluate("sent.slice(-2)")] == ["save", "forget"]
    assert page.get_by_label("your recording").is_hidden()


def test_it_stops_by_itself_at_the_limit(open_page):
    page = open_page()
    page.get_by_role("button", name="Record").click()
    page.wait_for_function("sent.length > 0", timeout=20_000)
    about, heard = sound(page)
    assert about["seconds"] == pytest.approx(1.2, abs=0.2)
    pieces = np.split(
        chirp(), 15
    )  # of 0.1 s: the file is repeated, and the recording may begin anywhere in it
    assert max(likeness(heard, piece) for piece in pieces) > 0.9
    page.get_by_role("button", name="Record").click()
    page.wait_for_function("/Recording/.test(document.querySelector('p').textContent)")
    page.evaluate("leave()")  # the output is cleared while it records
    page.wait_for_timeout(300)
    assert len(page.evaluate("sent")) == about["parts"]


def test_it_reads_a_file_up_to_the_limit(open_page, tmp_path):
    page = open_page()
    write_audio(tmp_path / "long.wav", np.concatenate([chirp(), np.zeros(32_000, np.float32)]))
    page.locator("input[type=file]").set_input_files(tmp_path / "long.wav")
    page.wait_for_function("sent.length > 0")
    about, heard = sound(page)
    assert about["seconds"] == pytest.approx(3.5, abs=0.01) and len(heard) == pytest.approx(19_200, abs=20)
    assert likeness(heard, chirp()[1_000:18_000]) > 0.99
    (tmp_path / "page.wav").write_text("no sound")
    page.locator("input[type=file]").set_input_files(tmp_path / "page.wav")
    page.wait_for_function(
        "/page.wav: this browser cannot read it/.test(document.querySelector('p').textContent)"
    )


REFUSES = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', '{}'))"


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"permissions": ()}, "The microphone was refused"),
        ({"before": REFUSES.format("NotFoundError")}, "There is no microphone"),
        ({"before": REFUSES.format("NotReadableError")}, "another program may hold it"),
        ({"before": REFUSES.format("OddError")}, "does not work (OddError: no)"),
        ({"before": "delete window.AudioWorkletNode"}, "This browser cannot record"),
        ({"host": "lab.example"}, "ssh -L 8888:localhost:8888 lab.example"),
    ],
)
def test_it_says_why_it_cannot_record_and_offers_a_file(where, words, open_page):
    page = open_page(**where)
    page.get_by_role("button", name="Record").click()
    page.wait_for_selector("p.problem")
    assert words in said(page) and said(page).endswith("or choose a file instead.")
    assert page.get_by_role("button", name="Record").is_enabled()
    assert page.get_by_role("button", name="File…").is_enabled() and page.evaluate("sent") == []


def test_a_frame_that_may_not_use_the_microphone_says_so(open_page):
    frame = open_page(file="frame.html").frame_locator("iframe")  # of another origin, as VS Code's are
    frame.get_by_role("button", name="Record").click()
    assert (
        "as VS Code does: use a browser, or choose a file instead." in frame.locator("p.problem").inner_text()
    )
