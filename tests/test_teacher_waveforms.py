"""From the waveform on: teachers prepare it as their origin does, transformers or fairseq and torchaudio, which differ
in what they add to the variance. Tried on sounds like speech from -20 to -60 dB.
"""

import json

import pytest
import torch
import torchaudio
import transformers
from formats import (
    SMALL,
    SMALL_LARGE_TORCHAUDIO,
    differences,
    shrunk,
    torchaudio_model,
    transformers_model,
    transformers_states,
    waves,
    write_fairseq,
)

from kdkit.common.errors import CheckpointError
from kdkit.teachers import load_teacher
from kdkit.teachers.bundles import BUNDLES

TOLERANCE = 1e-4


@pytest.mark.parametrize("form", ["preprocessor", "processor", "both"])
def test_transformers_own_preprocessing_end_to_end(form, tmp_path):
    """transformers 5 keeps the feature extractor in processor_config.json, which wins where both are there."""
    model = transformers_model("wav2vec2", True, **SMALL)
    model.save_pretrained(tmp_path)
    own = {
        "do_normalize": True,
        "sampling_rate": 16_000,
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    }
    if form in ("processor", "both"):
        unified = {"feature_extractor": own, "processor_class": "Wav2Vec2Processor"}
        (tmp_path / "processor_config.json").write_text(json.dumps(unified))
    if form != "processor":
        other = own | {"do_normalize": form == "preprocessor"}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(other))
    if transformers.__version__ < "5" and form != "preprocessor":  # 4 looks into the other file alone
        extractor = transformers.Wav2Vec2FeatureExtractor.from_dict(own)
    else:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    assert extractor.do_normalize
    teacher = load_teacher(tmp_path)
    batch, lengths = waves()
    for row, length in enumerate(lengths.tolist()):
        values = extractor(
            batch[row, :length].numpy(), sampling_rate=16_000, return_tensors="pt"
        ).input_values
        with torch.no_grad():
            theirs = model(values).last_hidden_state
        ours = teacher.hidden(batch[row : row + 1, :length], lengths[row : row + 1]).last
        assert (ours - theirs).abs().max() < TOLERANCE, length


@pytest.mark.parametrize("normalise", [False, True])
def test_processor_config_decides(normalise, tmp_path):
    transformers_model("hubert", True, **SMALL).save_pretrained(tmp_path)
    file = tmp_path / "processor_config.json"
    file.write_text(json.dumps({"feature_extractor": {"do_normalize": normalise, "sampling_rate": "16000"}}))
    assert load_teacher(tmp_path).config.normalise_input == normalise
    file.write_text(json.dumps({"feature_extractor": {"sampling_rate": 8000}}))
    with pytest.raises(
        CheckpointError, match=r"processor_config\.json: feature_extractor: a model for 8000 Hz"
    ):
        load_teacher(tmp_path)


def test_torchaudios_own_preprocessing_end_to_end(tmp_path, monkeypatch):
    bundle = torchaudio.pipelines.HUBERT_LARGE
    parameters = SMALL_LARGE_TORCHAUDIO
    monkeypatch.setattr(bundle, "_params", parameters)
    monkeypatch.setitem(BUNDLES, "HUBERT_LARGE", shrunk(BUNDLES["HUBERT_LARGE"], parameters))
    state = torchaudio_model("HUBERT_LARGE", parameters).state_dict()
    torch.save(state, tmp_path / bundle._path)
    monkeypatch.setattr(type(bundle), "_get_state_dict", lambda self, _: state)
    model, teacher = bundle.get_model(), load_teacher(tmp_path / bundle._path)
    batch, lengths = waves()
    for row, length in enumerate(lengths.tolist()):
        wave = batch[row : row + 1, :length]
        with torch.no_grad():
            theirs = model.extract_features(wave)[0]
        ours = teacher.hidden(wave, lengths[row : row + 1]).hidden
        for own, their in zip(ours[1:-1], theirs[:-1], strict=True):
            assert (own - their).abs().max() < TOLERANCE, length


def test_what_is_added_to_the_variance_matters(tmp_path):
    """The quiet ones tell the two apart: a teacher that prepared waves as the other origin does would be far off."""
    model = transformers_model("wav2vec2", True, **SMALL)
    model.save_pretrained(tmp_path / "folder")
    write_fairseq(tmp_path / "model.pt", model, normalise=True)
    for source, right, wrong in (
        ("folder", "transformers", "fairseq"),
        ("model.pt", "fairseq", "transformers"),
    ):
        teacher = load_teacher(tmp_path / source)
        assert max(differences(teacher, transformers_states(model, True, right))) < TOLERANCE
        assert differences(teacher, transformers_states(model, True, wrong))[0] > 1e-2
