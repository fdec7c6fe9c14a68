// Records the microphone, or reads a sound file, and hands the samples to the kernel.
// The samples go as binary messages and are never part of the widget's state, which notebooks save.

const PIECE = 250_000; // samples a message
const FILE = "or choose a file instead.";

// In the audio thread: passes on what it hears, 4096 samples at a time.
const LISTENER = `
registerProcessor("kdkit-listener", class extends AudioWorkletProcessor {
  constructor() { super(); this.block = new Float32Array(4096); this.filled = 0; }
  process([input]) {
    if (!input.length) return true;
    for (let i = 0; i < input[0].length; i++) {
      this.block[this.filled++] = input[0][i];
      if (this.filled === this.block.length) { this.port.postMessage(this.block); this.filled = 0; }
    }
    return true;
  }
});`;

const STYLE = `
.kdkit-recorder { display: flex; flex-flow: row wrap; align-items: center; gap: 6px; margin: 4px 2px;
  color: var(--jp-ui-font-color1, var(--vscode-foreground, inherit)); font: inherit; }
.kdkit-recorder button { font: inherit; color: inherit; background: transparent; border: 1px solid currentColor;
  border-radius: 3px; padding: 3px 10px; cursor: pointer; }
.kdkit-recorder button:disabled { opacity: 0.6; cursor: default; border-style: dashed; }
.kdkit-recorder button:focus-visible { outline: 3px solid #4A98DC; outline-offset: 1px; }
.kdkit-recorder meter { width: 7em; height: 1.1em; }
.kdkit-recorder audio { height: 32px; max-width: 100%; }
.kdkit-recorder p { flex-basis: 100%; margin: 2px 0; }
.kdkit-recorder p.problem { border-left: 4px solid #C0302A; padding-left: 8px; }`;

export function why_not(error) {
  const policy = document.permissionsPolicy ?? document.featurePolicy;
  if (!window.isSecureContext)
    return "Browsers give the microphone only to pages from https or from localhost, and this page came by http from " +
      `${location.hostname}. Open it by https, or through a tunnel (ssh -L 8888:localhost:8888 ${location.hostname}), ` +
      FILE;
  if (policy && !policy.allowsFeature("microphone"))
    return `The program that shows this notebook keeps the microphone from it, as VS Code does: use a browser, ${FILE}`;
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode)
    return `This browser cannot record: use a newer one, ${FILE}`;
  return {
    NotAllowedError: "The microphone was refused. Allow it for this page (the sign beside the address), press Record " +
      `again, ${FILE}`,
    NotFoundError: `There is no microphone: connect one, press Record again, ${FILE}`,
    NotReadableError: `The microphone cannot be opened; another program may hold it. Close that one, ${FILE}`,
  }[error?.name] ?? `The microphone does not work (${error?.name}: ${error?.message}): try again, ${FILE}`;
}

function joined(blocks) {
  const samples = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    samples.set(block, at);
    at += block.length;
  }
  return samples;
}

// 16-bit wav, for the player in this page
function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, x)), true));
  return new Blob([view], { type: "audio/wav" });
}

function render({ model, el }) {
  const limit = model.get("limit"); // seconds
  let live = null; // what runs while it records
  let gone = false; // has the output been cleared?

  const make = (tag, options = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), options);
    made.append(...children);
    return made;
  };
  const button = (label, hint, does) => make("button", { type: "button", textContent: label, title: hint, onclick: does });
  const record = button("Record", `Records up to ${limit} seconds from the microphone`, () => (live ? stop() : start()));
  const chooser = make("input", { type: "file", accept: "audio/*,.flac,.opus", hidden: true });
  const open = button("File…", "Takes a sound file instead of the microphone", () => chooser.click());
  const save = button("Save", "Writes the recording as a wav file beside the results of this notebook",
    () => model.send({ kind: "save" }));
  const forget = button("Forget", "Throws the recording away", () => { clear(); model.send({ kind: "forget" }); });
  const level = make("meter", { min: -60, max: 0, low: -45, high: -3, optimum: -20, value: -60, hidden: true });
  level.setAttribute("aria-label", "level of the microphone in decibels");
  const sound = make("audio", { controls: true, hidden: true });
  sound.setAttribute("aria-label", "your recording");
  const status = make("p");
  status.setAttribute("role", "status");
  const root = make("div", { className: "kdkit-recorder" }, make("style", { textContent: STYLE }),
    record, open, save, forget, level, sound, chooser, status);
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Record your own voice");

  const say = (words, problem = false) => {
    status.textContent = words;
    status.classList.toggle("problem", problem);
  };
  const told = () => {
    say(model.get("said"), model.get("problem"));
    save.disabled = forget.disabled = !model.get("has_sound");
    if (!model.get("has_sound")) clear();
  };
  const clear = () => {
    if (sound.src) URL.revokeObjectURL(sound.src);
    sound.removeAttribute("src");
    sound.hidden = true;
  };
  const hand_over = (samples, rate, seconds) => {
    clear();
    sound.src = URL.createObjectURL(wav(samples, rate));
    sound.hidden = false;
    say("The kernel reads it; while another cell runs, it waits.");
    const parts = Math.ceil(samples.length / PIECE);
    for (let part = 0; part < parts; part++) {
      const piece = samples.slice(part * PIECE, (part + 1) * PIECE);
      model.send({ kind: "sound", part, parts, rate, seconds }, undefined, [piece.buffer]);
    }
  };

  async function start() {
    record.disabled = true;
    say("Asking for the microphone …");
    let stream;
    try {
      const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
      stream = await navigator.mediaDevices.getUserMedia({ audio: raw });
      const context = new AudioContext();
      await context.resume();
      const module = URL.createObjectURL(new Blob([LISTENER], { type: "text/javascript" }));
      await context.audioWorklet.addModule(module);
      URL.revokeObjectURL(module);
      if (gone) throw new DOMException("the output was cleared", "AbortError");
      const listener = new AudioWorkletNode(context, "kdkit-listener", { numberOfOutputs: 0 });
      live = { stream, context, blocks: [], heard: 0 };
      listener.port.onmessage = ({ data }) => listen(data);
      context.createMediaStreamSource(stream).connect(listener);
      stream.getAudioTracks()[0].onended = () => live && stop(); // unplugged
      record.textContent = "Stop";
      level.hidden = false;
      open.disabled = true;
      say(`Recording: speak, then press Stop. 0.0 of ${limit} s`);
    } catch (error) {
      stream?.getTracks().forEach((track) => track.stop());
      say(why_not(error), true);
    }
    record.disabled = false;
  }

  function listen(block) {
    if (!live) return;
    live.blocks.push(block);
    live.heard += block.length / live.context.sampleRate;
    level.value = 20 * Math.log10(Math.max(1e-3, ...block.map(Math.abs)));
    status.textContent = `Recording: speak, then press Stop. ${live.heard.toFixed(1)} of ${limit} s`;
    if (live.heard >= limit) stop();
  }

  function silence() { // gives the microphone back
    const { stream, context } = live;
    stream.getTracks().forEach((track) => track.stop());
    context.close();
    live = null;
    record.textContent = "Record";
    level.hidden = true;
    open.disabled = false;
  }

  function stop() {
    const { blocks, heard, context } = live, rate = context.sampleRate;
    silence();
    if (blocks.length) hand_over(joined(blocks), rate, heard);
    else say("Nothing came from the microphone: is it muted? Keep Record on while you speak.", true);
  }

  chooser.onchange = async () => {
    const [file] = chooser.files;
    chooser.value = "";
    if (!file) return;
    say(`Reading ${file.name} …`);
    const context = new AudioContext();
    try {
      const read = await context.decodeAudioData(await file.arrayBuffer());
      const rate = read.sampleRate, some = Math.min(read.length, Math.ceil(rate * limit));
      const samples = new Float32Array(some);
      for (let channel = 0; channel < read.numberOfChannels; channel++)
        read.getChannelData(channel).subarray(0, some).forEach((x, i) => (samples[i] += x / read.numberOfChannels));
      hand_over(samples, rate, read.duration);
    } catch (error) {
      say(`${file.name}: this browser cannot read it as sound; a wav, mp3 or ogg file can be read.`, true);
    } finally {
      context.close();
    }
  };

  model.on("change:answers", told);
  told();
  el.append(root);
  return () => {
    gone = true;
    model.off("change:answers", told);
    if (live) silence();
    clear();
  };
}

export default { render };
