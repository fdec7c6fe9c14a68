"""The models that torchaudio publishes, its *bundles* (HUBERT_BASE, HUBERT_LARGE, WAV2VEC2_BASE, WAVLM_BASE, ...).

Their files hold tensors and nothing else. What shapes do not tell stands here, so torchaudio, which gets no more
releases, need not be installed; a test compares the table with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdkit.model.speech_model import SpeechModel
from kdkit.teachers.weight_names import build, sort_out

_URL = "https://download.pytorch.org/torchaudio/models/"
_SIZES = {768: (12, 12), 1024: (24, 16), 1280: (48, 16), 1920: (48, 16)}  # width: layers, heads
_ENGLISH = "|ETAONIHSRDLUMWCFGYPBVK'XJQZ"


@dataclass(frozen=True)
class Bundle:
    """A published model.

    Attributes:
        file: its name on torchaudio's server, or a URL.
        width: of the hidden states.
        layers, heads: of the encoder.
        normalised: the waveform is normalised, and LayerNorm comes before attention and FFN; in the others after them.
        relative_distance: the farthest that WavLM's relative positions tell apart.
        letters: of a recogniser's head, after the blank; "" for a model without a head. The file has ``unused``
            outputs besides, for fairseq's special symbols.
    """

    file: str
    width: int
    layers: int
    heads: int
    normalised: bool
    relative_distance: int | None = None
    letters: str = ""
    unused: tuple[int, ...] = (1, 2, 3)

    @property
    def url(self) -> str:
        return self.file if self.file.startswith("https") else _URL + self.file


def _bundle(file: str, width: int, normalised: bool, *settings, **more) -> Bundle:
    return Bundle(file, width, *_SIZES[width], normalised, *settings, **more)


def _hubert(size: str, width: int, tuned: bool = False) -> Bundle:
    file = f"hubert_fairseq_{size}{'_asr_ls960' if tuned else ''}.pth"
    return _bundle(file, width, width > 768, letters=_ENGLISH if tuned else "")


def _wav2vec2(size: str, width: int, normalised: bool = False, tuned: str = "") -> Bundle:
    file = f"wav2vec2_{size}{f'_asr_{tuned}' if tuned else ''}.pth"
    return _bundle(file, width, normalised, letters=_ENGLISH if tuned else "")


def _voxpopuli(language: str, letters: str, *unused: int) -> Bundle:
    file = f"wav2vec2_voxpopuli_base_10k_asr_{language}.pt"
    return _bundle(file, 768, False, letters="|" + letters, unused=(1, 2, 3, *unused))


BUNDLES = {
    "HUBERT_ASR_LARGE": _hubert("large_ll60k", 1024, tuned=True),
    "HUBERT_ASR_XLARGE": _hubert("xlarge_ll60k", 1280, tuned=True),
    "HUBERT_BASE": _hubert("base_ls960", 768),
    "HUBERT_LARGE": _hubert("large_ll60k", 1024),
    "HUBERT_XLARGE": _hubert("xlarge_ll60k", 1280),
    "MMS_FA": _bundle(
        "https://dl.fbaipublicfiles.com/mms/torchaudio/ctc_alignment_mling_uroman/model.pt",
        1024,
        True,
        letters="aienoutsrmkldghybpwcvjzf'qx",
    ),
    "VOXPOPULI_ASR_BASE_10K_DE": _voxpopuli("de", "enirstadhulgcmobwfkzpvüäöjßyxq", 35),
    "VOXPOPULI_ASR_BASE_10K_EN": _voxpopuli("en", "etoiansrhldcumpfgwybvkxjqz", 31),
    "VOXPOPULI_ASR_BASE_10K_ES": _voxpopuli("es", "eaosnrildctupmbqygvhófíájzñéxúkwü", 35),
    "VOXPOPULI_ASR_BASE_10K_FR": _voxpopuli("fr", "esnitraouldcpmévqfgbhxàjèyêzôkçœûùîâwïëüæ"),
    "VOXPOPULI_ASR_BASE_10K_IT": _voxpopuli("it", "eiaontrlscdupmgvhzfbqàèùéòìkyxwjóíï"),
    "WAV2VEC2_ASR_BASE_100H": _wav2vec2("fairseq_base_ls960", 768, tuned="ls100"),
    "WAV2VEC2_ASR_BASE_10M": _wav2vec2("fairseq_base_ls960", 768, tuned="ll10m"),
    "WAV2VEC2_ASR_BASE_960H": _wav2vec2("fairseq_base_ls960", 768, tuned="ls960"),
    "WAV2VEC2_ASR_LARGE_100H": _wav2vec2("fairseq_large_ls960", 1024, tuned="ls100"),
    "WAV2VEC2_ASR_LARGE_10M": _wav2vec2("fairseq_large_ls960", 1024, tuned="ll10m"),
    "WAV2VEC2_ASR_LARGE_960H": _wav2vec2("fairseq_large_ls960", 1024, tuned="ls960"),
    "WAV2VEC2_ASR_LARGE_LV60K_100H": _wav2vec2("fairseq_large_lv60k", 1024, True, tuned="ls100"),
    "WAV2VEC2_ASR_LARGE_LV60K_10M": _wav2vec2("fairseq_large_lv60k", 1024, True, tuned="ll10m"),
    "WAV2VEC2_ASR_LARGE_LV60K_960H": _wav2vec2("fairseq_large_lv60k", 1024, True, tuned="ls960"),
    "WAV2VEC2_BASE": _wav2vec2("fairseq_base_ls960", 768),
    "WAV2VEC2_LARGE": _wav2vec2("fairseq_large_ls960", 1024),
    "WAV2VEC2_LARGE_LV60K": _wav2vec2("fairseq_large_lv60k", 1024, True),
    "WAV2VEC2_XLSR53": _wav2vec2("fairseq_large_xlsr53", 1024, True),
    "WAV2VEC2_XLSR_1B": _wav2vec2("xlsr_1b", 1280, True),
    "WAV2VEC2_XLSR_2B": _wav2vec2("xlsr_2b", 1920, True),
    "WAV2VEC2_XLSR_300M": _wav2vec2("xlsr_300m", 1024, True),
    "WAVLM_BASE": _bundle("wavlm_base.pth", 768, False, 800),
    "WAVLM_BASE_PLUS": _bundle("wavlm_base_plus.pth", 768, False, 800),
    "WAVLM_LARGE": _bundle("wavlm_large.pth", 1024, True, 800),
}
"""By torchaudio's names."""


def bundle_of_file(path: Path) -> str | None:
    """The name of the bundle whose file is called that, or None."""
    return next((name for name, bundle in BUNDLES.items() if bundle.url.endswith("/" + path.name)), None)


def is_bundle(name: str, content: object, where: Path) -> bool:
    """True if the tensors have torchaudio's names and the bundle's width: file names can mislead."""
    network = sort_out(content, where)
    weight = network.own.get("front_end.projection.weight")
    return network.origin == "torchaudio" and (weight is None or weight.shape[:1] == (BUNDLES[name].width,))


def load_bundle(bundle: Bundle, content: object, where: Path) -> tuple[SpeechModel, dict]:
    """The model of a bundle, from the content of its file, and a description."""
    known = {
        "layers": bundle.layers,
        "heads": bundle.heads,
        "pre_norm": bundle.normalised,
        "normalise_input": bundle.normalised,
    }
    if bundle.relative_distance is not None:
        known["relative_distance"] = bundle.relative_distance
    model = build(sort_out(content, where), known, where)
    return model, {
        "format": "torchaudio",
        "architecture": "Wav2Vec2" if bundle.relative_distance is None else "WavLM",
    }
