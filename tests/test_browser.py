"""The notebooks in JupyterLab in a real browser: run, every control moved, clicked, stopped and resumed."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from kdkit.speech.audio import write_audio
from kdkit.speech.corpora.synthetic.saying import say
from kdkit.speech.corpora.synthetic.voices import SPEAKERS

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
STAR = (
    "() => [...document.querySelectorAll('.jp-InputPrompt')].filter(e => e.textContent.includes('*')).length"
)
LAB = "window.jupyterapp.shell.currentWidget"
CONNECTED = (
    f"() => window.jupyterapp && {LAB}?.sessionContext?.session?.kernel?.connectionStatus === 'connected'"
)
SAYS = "pattern => new RegExp(pattern).test(document.querySelector('.kdkit-widget')?.innerText)"
NO_MODEL = (
    "Error: widget model not found"  # JupyterLab, of every live widget in a notebook that is opened again
)
ERRORS = (
    f"() => {LAB}.content.widgets.flatMap(cell => cell.model.outputs?.toJSON() ?? [])"
    ".filter(output => output.output_type === 'error').map(output => output.ename + ': ' + output.evalue)"
)

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium (see .ci/run)"
    ),
    pytest.mark.skipif(
        int(ipywidgets.__version__.split(".")[0]) < 8,
        reason="JupyterLab 4 shows no widgets of ipywidgets 7, whose hosts have pages of their own",
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a folder with the notebooks in profile smoke: (address, folder)."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS.glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        changed = re.sub(r'(\bprofile = \\")\w+(\\")', r"\1smoke\2", text, count=1)
        assert changed != text, f"{path.name} has no profile to change"
        (folder / path.name).write_text(changed, encoding="utf-8")
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(
        '{"windowingMode": "none"}'
    )  # every cell in the page
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(NOTEBOOKS.parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    }
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0",
            "--allow-root", "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly", f"--LabApp.user_settings_dir={folder / 'settings'}",
            f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        ],
        cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        for _ in range(200):
            assert server.poll() is None, (folder / "server.log").read_text()
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}", folder
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser with a microphone that hears a synthetic voice, again and again."""
    spoken = tmp_path_factory.mktemp("microphone") / "voice.wav"
    write_audio(spoken, say("we saw the old boat on monday", SPEAKERS["test-clean"][0])[0])
    microphone = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}",
    ]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS + microphone)
        yield started
        started.close()


@pytest.fixture
def open_notebook(lab, browser):
    """Function: opens a notebook; console errors of all of them are asserted to be none at the end."""
    address, _ = lab
    complaints, pages = [], []

    def opened(name: str):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_function(CONNECTED, timeout=60_000)
        page.add_style_tag(content=".Toastify { display: none !important }")  # "would you like to get news?"
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        page.close()
    assert [said for said in complaints if not said.startswith(NO_MODEL)] == []


def run_all(page, wait: float = 600) -> None:
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.wait_for_function(f"() => ({STAR})() > 0", timeout=30_000)
    page.wait_for_function(f"() => ({STAR})() === 0", timeout=1000 * wait)


class Shown:
    """A widget on the page: its controls by label, and its picture."""

    def __init__(self, page, title: str):
        self.page = page
        self.root = page.locator(".kdkit-widget").filter(has=page.locator(f'img[alt^="{title}"]')).first
        self.root.scroll_into_view_if_needed()
        self.image = self.root.locator("img")

    @property
    def alt(self) -> str:
        return self.image.get_attribute("alt")

    @property
    def drawn(self) -> int:
        return int(self.image.get_attribute("data-drawn"))

    def pixels(self) -> bytes:
        return self.image.screenshot()

    def after(self, act) -> float:
        """Acts, waits until the picture has been drawn anew, and returns the seconds that it took."""
        before, began = self.drawn, time.perf_counter()
        act()
        while self.drawn == before:
            assert time.perf_counter() - began < 30, f"nothing was drawn after {act}"
            self.page.wait_for_timeout(20)
        return time.perf_counter() - began

    def control(self, label: str):
        return (
            self.root.locator(".jupyter-widgets")
            .filter(has=self.page.locator(f'label:text-is("{label}")'))
            .last
        )

    def slide(self, label: str, key: str = "ArrowRight") -> None:
        handle = self.control(label).locator(".noUi-handle")
        handle.focus()
        self.after(lambda: handle.press(key))

    def choose(self, label: str, value: str | None = None, **which) -> None:
        self.after(lambda: self.control(label).locator("select").select_option(value, **which))

    def press(self, label: str) -> None:
        self.root.get_by_role("button", name=label).click()

    def click(self, across: float, down: float) -> None:
        box = self.image.bounding_box()
        self.after(lambda: self.image.click(position={"x": across * box["width"], "y": down * box["height"]}))

    def record(self) -> str:
        """Records for more than two seconds; returns what is said of it."""
        status = self.root.get_by_role("status")
        self.press("Record")
        status.filter(has_text=re.compile(r"Recording: .* [2-9]\.\d of 20 s")).wait_for()
        self.after(lambda: self.press("Stop"))
        return status.inner_text()


def keep(shown: Shown, name: str) -> None:
    """A screenshot for README, where KDKIT_SCREENSHOTS names a folder."""
    if folder := os.environ.get("KDKIT_SCREENSHOTS"):
        shown.root.screenshot(path=Path(folder) / f"{name}.png")


def test_layer_explorer(open_notebook):
    page = open_notebook("01_teacher_probing")
    run_all(page)
    assert page.evaluate(ERRORS) == []
    shown = Shown(page, "Layer explorer")
    seen = {shown.pixels()}
    assert "tiny H6" in shown.alt
    shown.slide("layer")
    assert "tiny H7" in shown.alt
    seen.add(shown.pixels())
    shown.choose("utterance", index=2)
    seen.add(shown.pixels())
    shown.slide("head")
    seen.add(shown.pixels())
    assert "and student H12" in shown.alt and "CKA of the two" in shown.root.inner_text()
    shown.choose("compare", "none")
    assert "student" not in shown.alt and "CKA of the two" not in shown.root.inner_text()
    seen.add(shown.pixels())
    shown.choose("compare", "student")
    shown.slide("its layer", "ArrowLeft")
    assert "student H11" in shown.alt
    seen.add(shown.pixels())
    keep(shown, "layer_explorer")
    shown.choose("model", "student")
    assert "student H7" in shown.alt
    seen.add(shown.pixels())
    assert len(seen) == 7, "two settings looked the same"
    assert shown.root.locator("audio").count() == 1

    voice = Shown(page, "Your voice in the layers")
    assert "by synthetic voice steph3 and synthetic voice f4 in H6" in voice.alt
    assert "s of speech. It is in the kernel's memory only" in voice.record()
    assert "by your voice and synthetic voice f4 in H6" in voice.alt
    keep(voice, "own_voice_layers")
    voice.slide("layer")
    assert "in H7" in voice.alt

    quiz = page.locator(".kdkit-quiz")
    quiz.scroll_into_view_if_needed()
    assert "0 of 5 right" in quiz.inner_text()
    said, question = [], quiz.get_by_role("group").first
    reply = question.locator("output")
    question.locator("input").first.focus()
    for key in ("Space", "ArrowDown", "ArrowDown", "ArrowDown"):
        before = reply.text_content()
        page.keyboard.press(key)
        page.wait_for_function(
            "([reply, before]) => reply.textContent !== before", arg=[reply.element_handle(), before]
        )
        said.append(reply.text_content().split()[1])
    assert sorted(said) == ["No.", "No.", "No.", "Right."]

    names = shown.root.get_by_role("slider").evaluate_all("all => all.map(e => e.ariaLabel)")
    assert names == ["layer", "its layer", "head"]
    wide = shown.image.evaluate("image => image.naturalWidth")
    shown.after(lambda: page.set_viewport_size({"width": 800, "height": 900}))
    page.wait_for_function("image => image.naturalWidth === 600", arg=shown.image.element_handle())
    assert wide == 920 and shown.image.bounding_box()["width"] > 300
    dark = (
        "() => { window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' }) }"
    )
    shown.after(lambda: page.evaluate(dark))
    corner = Image.open(io.BytesIO(shown.pixels())).convert("RGB").getpixel((2, 2))
    assert max(corner) < 40, "a white picture on a dark page"


def test_loss_lab_designer_and_dashboard(open_notebook):
    page = open_notebook("02_distillation")
    run_all(page)
    assert page.evaluate(ERRORS) == []

    lab = Shown(page, "Loss lab")
    seen = {lab.pixels()}
    lab.choose("tau", "0.5")
    assert "tau 0.5" in lab.alt
    seen.add(lab.pixels())
    for label in ("lambda", "w_cos", "frame"):
        lab.slide(label)
        seen.add(lab.pixels())
    assert "lambda 0.5, w_cos 1.1" in lab.alt
    lab.choose("variant", "hard")
    seen.add(lab.pixels())
    before = lab.alt
    lab.press("20 steps")
    page.wait_for_function("() => /after 20 steps/.test(document.body.innerText)", timeout=30_000)
    assert lab.alt != before
    lab.click(0.3, 0.2)
    early = int(re.search(r"frame (\d+)", lab.alt)[1])
    lab.click(0.7, 0.2)
    late = int(re.search(r"frame (\d+)", lab.alt)[1])
    assert early < late and 0.25 < early / late < 0.6, (early, late)
    lab.choose("utterance", index=1)
    seen.add(lab.pixels())
    assert len(seen) == 7
    keep(lab, "loss_lab")

    designer = Shown(page, "Student designer")
    seen = {designer.pixels()}
    assert "12 layers of width 96" in designer.alt
    designer.slide("depth", "ArrowLeft")
    assert "11 layers" in designer.alt and "(estimated)" in designer.root.inner_text()
    seen.add(designer.pixels())
    designer.after(lambda: designer.press("measure"))
    assert "(measured)" in designer.root.inner_text()
    designer.after(lambda: designer.press("take this student"))
    assert "Taken: this one" in designer.root.inner_text()
    for label, text in (("width", "width 112"), ("FFN", "FFN 128")):
        designer.slide(label)
        assert text in designer.alt
        seen.add(designer.pixels())
    designer.choose("heads", "2")
    designer.choose("front-end", "waveform")
    assert "2 heads, waveform" in designer.alt
    keep(designer, "student_designer")
    designer.choose("preset", "tiny-sw-fbank")
    assert "2 layers of width 160, FFN 640, 5 heads, fbank" in designer.alt
    seen.add(designer.pixels())
    assert len(seen) == 5

    board = Shown(page, "Training dashboard")
    assert "done, 4 steps" in board.root.inner_text()
    keep(board, "training_dashboard")
    seen = {board.pixels()}
    board.slide("mean over")
    seen.add(board.pixels())
    board.after(lambda: board.root.get_by_label("logarithmic").check())
    seen.add(board.pixels())
    assert len(seen) == 3


def test_front_end_lab(open_notebook):
    page = open_notebook("03_fbank_front_end")
    run_all(page)
    assert page.evaluate(ERRORS) == []
    shown = Shown(page, "Front-end lab")
    seen = {shown.pixels()}
    for label in ("mel bins", "window, ms", "mask, bins", "mask, frames", "frame"):
        for _ in range(
            4 if label == "mask, frames" else 1
        ):  # one frame is hidden by the mark of the chosen one
            shown.slide(label)
        seen.add(shown.pixels())
    assert "84 bins, 30 ms" in shown.alt
    frames = [int(re.search(r"frame (\d+) marked", shown.alt)[1])]
    for across in (0.25, 0.75):
        shown.click(across, 0.5)
        frames.append(int(re.search(r"frame (\d+) marked", shown.alt)[1]))
    assert frames[1] < frames[0] < frames[2]
    keep(shown, "front_end_lab")
    shown.choose("front-end of", "tiny-dt-fbank")
    assert "front-end of tiny-dt-fbank" in shown.root.inner_text()
    seen.add(shown.pixels())
    shown.choose("utterance", index=3)
    seen.add(shown.pixels())
    assert len(seen) == 8


def test_ctc_viewer(open_notebook):
    page = open_notebook("04_low_resource_finetuning")
    run_all(page)
    assert page.evaluate(ERRORS) == []
    shown = Shown(page, "CTC viewer")
    seen = {shown.pixels()}
    assert "Written: “" in shown.alt
    shown.slide("utterance")
    seen.add(shown.pixels())
    keep(shown, "ctc_viewer")
    worst = wrong(shown)
    shown.choose("order", "best first")
    assert wrong(shown) <= worst
    seen.add(shown.pixels())
    shown.choose("word times of", "reference")
    seen.add(shown.pixels())
    shown.choose("recogniser", index=0)
    seen.add(shown.pixels())
    assert len(seen) == 5
    assert shown.root.locator("audio").count() == 1

    voice = Shown(page, "Your voice, written")
    voice.record()
    assert re.search(r"your voice: “\w.*”, \d+ of \d+ words wrong", voice.alt)
    keep(voice, "own_voice_text")
    voice.press("Save")
    voice.root.get_by_text(re.compile("Saved as .*own_voice_1.wav")).wait_for()
    voice.after(lambda: voice.press("Forget"))
    assert "your voice" not in voice.alt


def wrong(shown: Shown) -> float:
    """Share of wrong words of the utterance that is shown."""
    errors, words = map(int, re.search(r"(\d+) of (\d+) words wrong", shown.root.inner_text()).groups())
    return errors / words


SLOW = '''
import time, torch
from kdkit.training.loop import TrainConfig
from kdkit.lessons.widgets import TrainingDashboard

class Slow(torch.nn.Module):
    """A line through two points, a step in a tenth of a second."""
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(()))
    def forward(self, batch):
        time.sleep(0.1)
        return (self.slope - 1) ** 2, {}

class One:
    seconds, utterances = 1.0, ["u"]
    def to(self, device): return self

class Batches:
    stride = 1
    def batch(self, number): return One()
'''


def test_a_stopped_cell_goes_on_in_another_kernel_and_leaves_a_picture(lab, open_notebook):
    _, folder = lab
    sources = [
        SLOW,
        'board = TrainingDashboard(("loss",))\nboard.show()',
        "recipe = TrainConfig(steps=40, log_every=2)\ntask = Slow()\n"
        'log = await board.train("line", task, Batches(), recipe, "line")',
        'print("rows", len(log), "slope", task.slope.item())',
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=list(map(new_code_cell, sources)), metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "dashboard.ipynb")
    page = open_notebook("dashboard")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    board = Shown(page, "Training dashboard")
    page.wait_for_function(SAYS, arg=r"line: step \d+ of 40", timeout=60_000)
    board.press("Stop")
    page.wait_for_function(SAYS, arg=r"stopped after step \d+", timeout=30_000)
    said = re.search(r"line: stopped after step (\d+) of 40, saved\..*", board.root.inner_text())
    assert 0 < int(said[1]) < 40, "the button was not heard while the cell ran"
    page.wait_for_function(f"() => ({STAR})() === 0", timeout=30_000)
    assert page.evaluate(ERRORS) == [f"StoppedTraining: {said[0]}"]
    assert page.evaluate(f"() => {LAB}.content.widgets[3].model.outputs.length") == 0, "it had no log yet"

    page.evaluate(f"() => {LAB}.sessionContext.session.kernel.restart()")
    run_all(page, 60)
    assert page.evaluate(ERRORS) == []
    assert "rows 20 slope" in page.locator(".jp-Notebook").inner_text()
    assert "line: done, 40 steps" in board.alt
    still = page.locator('[class^="still-"] img')
    assert board.root.is_visible() and not still.is_visible()
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.evaluate(f"() => {LAB}.sessionContext.shutdown()")

    again = open_notebook("dashboard")
    message = again.get_by_text("Error displaying widget")
    message.wait_for(state="attached", timeout=30_000)
    still = again.locator('[class^="still-"] img')
    assert still.is_visible() and not message.is_visible()
    assert "line: done, 40 steps" in still.get_attribute("alt")
