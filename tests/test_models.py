"""Models against torchaudio, parameter counts of the paper's structures, frame counts, padding."""

import pytest
import torch
import torchaudio

from kdkit.common.errors import ConfigError
from kdkit.fbank import FbankFrontEnd
from kdkit.model.speech_model import PRESETS, ModelConfig, SpeechModel, parameter_count, preset
from kdkit.model.waveform import MaskedGroupNorm
from kdkit.speech.frames import num_frames

SMALL = ModelConfig(
    layers=3, dim=48, ffn=96, heads=4, conv_channels=(8,) * 7, pos_kernel=16, pos_groups=4, dropout=0.0
)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("hubert-base", 94_370_944),
        ("dt-waveform", 22_938_880),
        ("dt-fbank", 19_107_008),
        ("sw-waveform", 23_492_224),
        ("sw-fbank", 20_103_296),
    ],
)
def test_parameter_counts_of_the_paper(name, count):
    with torch.device("meta"):
        assert parameter_count(SpeechModel(preset(name))) == count


def test_fbank_front_end_parameters():
    assert parameter_count(FbankFrontEnd(480)) == 615_840
    assert parameter_count(FbankFrontEnd(768)) == 1_206_528


def test_tiny_students_are_about_a_fifth_of_the_tiny_teacher():
    teacher = parameter_count(SpeechModel(preset("tiny-teacher")))
    for name in PRESETS:
        if name.startswith("tiny-") and name != "tiny-teacher":
            assert 0.15 < parameter_count(SpeechModel(preset(name))) / teacher < 0.25, name


def torchaudio_twin(config: ModelConfig) -> tuple[SpeechModel, torch.nn.Module]:
    """Our model and torchaudio's with the same random weights."""
    torch.manual_seed(0)
    theirs = torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[
            (c, k, s) for c, k, s in zip(config.conv_channels, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
        ],
        extractor_conv_bias=False,
        encoder_embed_dim=config.dim,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=config.pos_kernel,
        encoder_pos_conv_groups=config.pos_groups,
        encoder_num_layers=config.layers,
        encoder_num_heads=config.heads,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=config.ffn,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=config.pre_norm,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    ).eval()
    ours = SpeechModel(config).eval()
    front, encoder = theirs.feature_extractor, theirs.encoder
    with torch.no_grad():
        for own, layer in zip(ours.front_end.cnn.convs, front.conv_layers):
            own.weight.copy_(layer.conv.weight)
        ours.front_end.cnn.norm.load_state_dict(front.conv_layers[0].layer_norm.state_dict())
        ours.front_end.norm.load_state_dict(encoder.feature_projection.layer_norm.state_dict())
        ours.front_end.projection.load_state_dict(encoder.feature_projection.projection.state_dict())
        ours.encoder.positions.conv.load_state_dict(encoder.transformer.pos_conv_embed.conv.state_dict())
        ours.encoder.norm.load_state_dict(encoder.transformer.layer_norm.state_dict())
        for own, layer in zip(ours.encoder.layers, encoder.transformer.layers):
            attention = layer.attention
            parts = (attention.q_proj, attention.k_proj, attention.v_proj)
            own.attention.qkv.weight.copy_(torch.cat([p.weight for p in parts]))
            own.attention.qkv.bias.copy_(torch.cat([p.bias for p in parts]))
            own.attention.out.load_state_dict(attention.out_proj.state_dict())
            own.norm1.load_state_dict(layer.layer_norm.state_dict())
            own.norm2.load_state_dict(layer.final_layer_norm.state_dict())
            own.ffn_in.load_state_dict(layer.feed_forward.intermediate_dense.state_dict())
            own.ffn_out.load_state_dict(layer.feed_forward.output_dense.state_dict())
    return ours, theirs


@pytest.mark.parametrize("pre_norm", [False, True])
def test_equals_torchaudio_layer_by_layer(pre_norm):
    ours, theirs = torchaudio_twin(ModelConfig(**{**SMALL.to_dict(), "pre_norm": pre_norm}))
    waves = torch.randn(2, 6000)
    with torch.no_grad():
        output = ours(waves, torch.tensor([6000, 6000]))
        reference, _ = theirs.extract_features(waves)
    for layer, (own, wanted) in enumerate(zip(output.hidden[1:], reference), 1):
        if pre_norm and layer == SMALL.layers:
            wanted = theirs.encoder.transformer.layer_norm(wanted)  # our last state is normalised
        torch.testing.assert_close(own, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("front_end", ["waveform", "fbank"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_padding_does_not_change_an_utterance(front_end, pre_norm):
    torch.manual_seed(1)
    config = ModelConfig(**{**SMALL.to_dict(), "front_end": front_end, "pre_norm": pre_norm})
    model = SpeechModel(config).eval()
    sizes = [9000, 400, 5123, 12_345]
    waves = torch.zeros(len(sizes), max(sizes))
    for row, size in enumerate(sizes):
        waves[row, :size] = torch.randn(size) * 0.1 + 0.05
    with torch.no_grad():
        together = model(waves, torch.tensor(sizes))
        for row, size in enumerate(sizes):
            alone = model(waves[row : row + 1, :size], torch.tensor([size]), padded=False)
            assert together.frames[row] == num_frames(size) == alone.last.shape[1]
            for a, b in zip(together.hidden, alone.hidden, strict=True):
                torch.testing.assert_close(a[row, : together.frames[row]], b[0], atol=2e-5, rtol=1e-4)


def test_masked_group_norm_is_group_norm_without_padding():
    x = torch.randn(3, 5, 40)
    norm = MaskedGroupNorm(5)
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x, torch.full((3,), 40)), norm(x), atol=1e-5, rtol=1e-4)


def test_config_errors_say_what_is_wrong():
    with pytest.raises(ConfigError, match="waveform"):
        ModelConfig(front_end="mel")
    with pytest.raises(ConfigError, match="heads"):
        ModelConfig(dim=100, heads=12)
    with pytest.raises(ConfigError, match="depth"):
        ModelConfig.from_dict({"depth": 3})
    with pytest.raises(ConfigError, match="tiny-teacher"):
        preset("tiny")
