"""Do teachers of every format have the hidden states of the reference? Prints the largest differences.

    python data_scripts/check_formats.py                      # small models, seconds
    python data_scripts/check_formats.py --size base          # full size, a minute or two of one core
    python data_scripts/check_formats.py --size large         # 24 layers of width 1024; 8 GB of memory

Random-weight models of transformers and torchaudio are written in each format and loaded back by
``kdkit.load_teacher``. Compared are all hidden states H^0 .. H^L of three utterances like speech, from -20 to
-60 dB, alone and in one padded batch, with those that the reference's own preprocessing and model give an utterance
alone. Exit status 1 when a difference exceeds 1e-4. Needs transformers (``.[dev]``).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import formats
import transformers
from audio_witness import torchaudio

from kdkit.teachers import bundles, load_teacher

TOLERANCE = 1e-4
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SETTINGS = {"small": formats.SMALL, "base": {}, "large": LARGE}
VARIANTS = {"small": (False, True), "base": (False,), "large": (True,)}  # is it built like the Large models?
NAMES = {"hubert": "HuBERT", "wav2vec2": "wav2vec 2.0", "wavlm": "WavLM"}
BUNDLES = {
    False: ("HUBERT_BASE", "WAV2VEC2_BASE", "WAVLM_BASE"),
    True: ("HUBERT_LARGE", "WAV2VEC2_LARGE_LV60K", "WAVLM_LARGE"),
}
FOLDERS = ("safetensors", "bin", "safetensors shards", "bin shards")


def of_transformers(size: str, large: bool, folder: Path) -> Iterator[tuple]:
    """(model, format, path, states, reference's name) of everything that transformers' models are written as."""
    for kind, name in NAMES.items():
        model = formats.transformers_model(kind, large, **SETTINGS[size])
        states = formats.transformers_states(model, large)
        reference = f"transformers {type(model).__name__}"
        for form in FOLDERS:
            path = folder / "hub"
            formats.write_folder(path, model, form)
            yield name, f"Hugging Face {form}", path, states, reference
        states = formats.transformers_states(model, large, "fairseq")
        path = folder / "model.pt"
        if kind == "wavlm":
            formats.write_wavlm(path, model, large)
            yield name, "Microsoft .pt", path, states, reference
            continue
        clusters = 500 if kind == "hubert" else 0
        for form, label in (("cfg", "fairseq .pt"), ("s3prl", "fairseq, s3prl-converted")):
            if form == "cfg" or clusters:
                formats.write_fairseq(path, model, large, clusters, form)
                yield name, label, path, states, reference
    if not large:
        model = formats.transformers_model("hubert", **SETTINGS[size] | formats.DISTILHUBERT)
        formats.write_folder(folder / "hub", model)
        states = formats.transformers_states(model, False)
        yield "DistilHuBERT", "Hugging Face safetensors", folder / "hub", states, "transformers HubertModel"
        formats.write_distiller(folder / "model.ckpt", model)
        yield "DistilHuBERT", "s3prl .ckpt", folder / "model.ckpt", states, "transformers HubertModel"


def of_torchaudio(size: str, large: bool, folder: Path) -> Iterator[tuple]:
    """The same of torchaudio's bundles; small ones have the bundle's structure at another size."""
    for name, bundle_name in zip(NAMES.values(), BUNDLES[large], strict=True):
        bundle = getattr(torchaudio.pipelines, bundle_name)
        parameters, ours = bundle._params, bundles.BUNDLES[bundle_name]
        if size == "small":
            kept = {
                "encoder_embed_dim",
                "encoder_num_layers",
                "encoder_num_heads",
                "encoder_ff_interm_features",
            }
            kept |= {"extractor_conv_layer_config", "encoder_pos_conv_kernel", "encoder_pos_conv_groups"}
            parameters = parameters | {key: formats.SMALL_TORCHAUDIO[key] for key in kept}
        model = formats.torchaudio_model(bundle_name, parameters)
        path = folder / ours.file
        formats.torch.save(model.state_dict(), path)
        states = formats.torchaudio_states(model, bundle._normalize_waveform)
        with patch.dict(bundles.BUNDLES, {bundle_name: formats.shrunk(ours, parameters)}):
            yield name, f"torchaudio {bundle_name}", path, states, "torchaudio"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SETTINGS, default="small")
    size = parser.parse_args().size
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    widths = (12, 31, 5, 17, 6, 9, 9, 0)
    head = ("model", "format", "size", "norm", "layers", "alone", "padded", "reference")
    show(head, widths)
    worst = 0.0
    for large in VARIANTS[size]:
        for source in (of_transformers, of_torchaudio):
            with TemporaryDirectory() as folder:
                for name, form, path, states, reference in source(size, large, Path(folder)):
                    teacher = load_teacher(path)
                    alone, padded = formats.differences(teacher, states)
                    worst = max(worst, alone, padded)
                    norm = "layer, pre-norm" if large else "group, post-norm"
                    layers = teacher.config.layers
                    show((name, form, size, norm, layers, f"{alone:.1e}", f"{padded:.1e}", reference), widths)
                    del teacher
                    remove(path)
    print(f"largest difference: {worst:.1e} (allowed: {TOLERANCE:g})")
    return int(worst > TOLERANCE)


def show(cells: tuple, widths: tuple[int, ...]) -> None:
    print(
        "  ".join(str(cell).ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip(),
        flush=True,
    )


def remove(path: Path) -> None:
    """The next format is written to the same place."""
    for file in path.iterdir() if path.is_dir() else [path]:
        file.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
