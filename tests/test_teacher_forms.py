"""Teachers in the wrappings that people bring: trainers' prefixes, fine-tuned and distilled files, several label sets,
heads, bare tensors.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torchaudio
import transformers
from formats import (
    DISTILHUBERT,
    KINDS,
    SMALL,
    SMALL_CONVS,
    SMALL_TORCHAUDIO,
    differences,
    fairseq_settings,
    fairseq_tensors,
    torchaudio_model,
    torchaudio_states,
    transformers_model,
    transformers_states,
    write_distiller,
    write_dphubert,
)

from kdkit.common.errors import CheckpointError
from kdkit.teachers import load_teacher
from kdkit.teachers.bare import _HEADS as PUBLISHED
from kdkit.teachers.bundles import BUNDLES
from kdkit.teachers.fairseq import _evaluated
from kdkit.teachers.huggingface import load_with_head

TOLERANCE = 1e-4


def refused(source) -> str:
    with pytest.raises(CheckpointError) as error:
        load_teacher(source)
    said = str(error.value)
    assert "\n" not in said and len(said) < 700
    return said


def saved(path, content):
    torch.save(content, path)
    return path


def prefixed(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def hubert():
    return transformers_model("hubert", **SMALL)


@pytest.fixture(scope="module")
def cfg(hubert):
    model, task = fairseq_settings(hubert, False)
    return {"model": model, "task": task}


# --- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "encoder.w2v_model.",
        "w2v_encoder.w2v_model.",
        "w2v_model.",
        "model.",
        "model.module.upstream.",
    ],
)
def test_what_stands_before_the_names_of_fairseq(prefix, hubert, cfg, tmp_path):
    torch.manual_seed(1)
    tensors = prefixed(fairseq_tensors(hubert, 11), prefix)
    beside = {"encoder.proj.weight": torch.zeros(5, 48), "decoder.embed.weight": torch.zeros(5, 3)}
    teacher = load_teacher(saved(tmp_path / "model.pt", {"cfg": cfg, "model": tensors | beside}))
    assert max(differences(teacher, transformers_states(hubert, False, "fairseq"))) < TOLERANCE
    assert torch.equal(teacher.codebook.label_embeddings, tensors[f"{prefix}label_embs_concat"][4:])


def test_a_model_whose_weight_norm_was_removed(hubert, cfg, tmp_path):
    tensors = fairseq_tensors(hubert)
    size, direction = (tensors.pop(f"encoder.pos_conv.0.weight_{letter}") for letter in "gv")
    tensors["encoder.pos_conv.0.weight"] = size * direction / direction.norm(dim=(0, 1), keepdim=True)
    teacher = load_teacher(saved(tmp_path / "model.pt", {"cfg": cfg, "model": tensors}))
    assert max(differences(teacher, transformers_states(hubert, False, "fairseq"))) < TOLERANCE


def test_two_networks_in_one_file(hubert, cfg, tmp_path):
    tensors = fairseq_tensors(hubert)
    both = prefixed(tensors, "student.") | prefixed(tensors, "teacher.")
    said = refused(saved(tmp_path / "model.pt", {"cfg": cfg, "model": both}))
    assert "several networks, ['student.', 'teacher.']" in said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapping", ["alone", "lightning", "parameters", "safetensors"])
def test_a_state_dict_of_transformers_with_its_config_beside_it(kind, wrapping, tmp_path):
    model = transformers_model(kind, True, **SMALL)
    model.config.save_pretrained(tmp_path)
    tensors = dict(model.state_dict())
    path = tmp_path / "weights.pt"
    if wrapping == "lightning":
        content = {"state_dict": prefixed(tensors, "model."), "pytorch-lightning_version": "2.1", "epoch": 3}
        content["hyper_parameters"] = SimpleNamespace(lr=1e-4)
    elif wrapping == "parameters":  # they need a gradient
        content = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in tensors.items()}
    else:
        content = tensors
    if wrapping == "safetensors":
        from safetensors.torch import save_file

        path = tmp_path / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    else:
        saved(path, content)
    teacher = load_teacher(path)
    assert teacher.config.normalise_input and "assumed" not in teacher.meta
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert max(differences(teacher, transformers_states(model, True))) < TOLERANCE


def test_a_bare_state_dict_of_a_published_shape(tmp_path):
    """Its heads are those of every model of that width, and the teacher says that this was assumed."""
    small = SMALL | {"num_hidden_layers": 1, "intermediate_size": 32}
    for large, dim, heads in ((False, 768, 12), (True, 1024, 16)):
        model = transformers_model(
            "hubert", large, **small | {"hidden_size": dim, "num_attention_heads": heads}
        )
        teacher = load_teacher(saved(tmp_path / "mine.pt", model.state_dict()))
        assert teacher.config.heads == heads and teacher.config.normalise_input == large
        assert f"assumed: {heads} heads" in str(teacher)
        assert max(differences(teacher, transformers_states(model, large), (9000,))) < TOLERANCE
    model = transformers_model("wavlm", **SMALL)  # its gates tell the number of heads
    teacher = load_teacher(saved(tmp_path / "mine.pt", model.state_dict()))
    assert max(differences(teacher, transformers_states(model, False))) < TOLERANCE
    said = refused(saved(tmp_path / "mine.pt", transformers_model("hubert", **SMALL).state_dict()))
    assert "no published model has their width of 48: put transformers' config.json beside it" in said


def test_the_table_of_bundles_is_torchaudios():
    pipelines, kinds = torchaudio.pipelines, {"Wav2Vec2": None, "WavLM": 800}
    theirs = {n for n in dir(pipelines) if isinstance(getattr(pipelines, n), pipelines.Wav2Vec2Bundle)}
    assert list(BUNDLES) == sorted(theirs)
    for name, ours in BUNDLES.items():
        bundle = getattr(pipelines, name)
        given = bundle._params
        assert ours.url.endswith(bundle._path) and bundle.sample_rate == 16_000, name
        assert ours.width == given["encoder_embed_dim"] and ours.layers == given["encoder_num_layers"], name
        assert ours.heads == given["encoder_num_heads"] == PUBLISHED[ours.width], name
        large = given["extractor_mode"] == "layer_norm"
        assert ours.normalised == bundle._normalize_waveform == given["encoder_layer_norm_first"] == large, (
            name
        )
        assert ours.relative_distance == given.get("encoder_max_distance") == kinds[bundle._model_type], name
        assert ours.letters == "".join(getattr(bundle, "_labels", "")), name
        assert not ours.letters or ours.unused == bundle._remove_aux_axis, name


def test_torchaudios_state_dict_under_a_name_of_its_own(tmp_path):
    parameters = SMALL_TORCHAUDIO | {
        "encoder_embed_dim": 768, "encoder_num_heads": 12, "encoder_num_layers": 1, "encoder_ff_interm_features": 32
    }  # fmt: skip
    model = torchaudio_model("HUBERT_BASE", parameters)
    for name in ("mine.pt", "model.pt"):  # a bundle's file, MMS_FA's, is called model.pt
        teacher = load_teacher(saved(tmp_path / name, {"state_dict": prefixed(model.state_dict(), "model.")}))
        assert teacher.config.normalise_epsilon == 1e-5
        assert max(differences(teacher, torchaudio_states(model, False), (9000,))) < TOLERANCE


def test_a_whole_model_is_not_a_state_dict(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    assert "saved again by its state_dict()" in refused(tmp_path / "model.pt")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        *(f"{kind}For{task}" for kind in ("Hubert", "Wav2Vec2", "WavLM") for task in ("CTC", "SequenceClassification")),
        *(f"{kind}For{task}" for kind in ("Wav2Vec2", "WavLM") for task in ("XVector", "AudioFrameClassification")),
        "Wav2Vec2ForPreTraining",
    ],
)  # fmt: skip
def test_heads_of_transformers_are_set_aside(name, weighted, tmp_path):
    make = getattr(transformers, name)
    sizes = {"tdnn_dim": (8,) * 5, "xvector_output_dim": 5, "proj_codevector_dim": 8, "codevector_dim": 8}
    sizes |= {"classifier_proj_size": 7, "num_codevectors_per_group": 4, "vocab_size": 7, "num_labels": 3}
    torch.manual_seed(0)
    model = make(make.config_class(**SMALL, **sizes, use_weighted_layer_sum=weighted)).eval()
    model.save_pretrained(tmp_path)
    network = getattr(model, model.base_model_prefix)
    assert len(model.state_dict()) > len(network.state_dict()), "there is a head"
    assert max(differences(load_teacher(tmp_path), transformers_states(network, False), (9000,))) < TOLERANCE
    _, _, tensors = load_with_head(tmp_path)
    assert tensors.keys() == model.state_dict().keys(), "whoever wants the head finds it"


# --- fairseq --------------------------------------------------------------------------------------------------


CONVS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"


@pytest.mark.parametrize("written", [CONVS, f" {CONVS}", "[(8, 10, 5)] + 4 * [(8, 3, 2)] + [(8, 2, 2), (8, 2, 2)]",
                                     SMALL_CONVS])  # fmt: skip
def test_convolutions_of_fairseqs_settings(written, hubert, cfg, tmp_path):
    cfg = cfg | {"model": cfg["model"] | {"conv_feature_layers": written}}
    path = saved(tmp_path / "model.pt", {"cfg": cfg, "model": fairseq_tensors(hubert)})
    assert max(differences(load_teacher(path), transformers_states(hubert, False, "fairseq"))) < TOLERANCE


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] + [(512,2,1)]", "a frame every 10 ms"),
        ("[(512,10,4)] + [(512,3,2)] * 4 + [(512,2,2)] * 2", "a frame every 16 ms"),
        ("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)]", "kernels [10, 3, 3, 3, 3, 2]"),
        ("__import__('os').system('false')", "no list of (channels, kernel, stride)"),
        ("[(512,10,5)] * 10**9", "no list of"),
        ("[(512,10)]", "no list of"),
        ("[(512,'x',5)]", "not lists of whole numbers"),
        ("(" * 900, "no list of"),
        ("[" + "(1,1,1)," * 10**5 + "]", "no list of"),
        (5, "no list of"),
        ([[1, 2]], "no list of"),
    ],
)
def test_convolutions_that_kdkit_does_not_have(written, words, hubert, cfg, tmp_path):
    cfg = cfg | {"model": cfg["model"] | {"conv_feature_layers": written}}
    path = saved(tmp_path / "model.pt", {"cfg": cfg, "model": fairseq_tensors(hubert)})
    assert words in refused(path)


def test_sums_and_multiples_of_lists_and_nothing_else():
    import ast

    def value(text):
        return _evaluated(ast.parse(text, mode="eval").body)

    assert value("[(1, 2, 3)] * 2 + [(4, 5, 6)]") == [(1, 2, 3), (1, 2, 3), (4, 5, 6)]
    assert len(value("[(1, 2, 3)] * 100 * 100 * 100")) == 100
    for text in ("open('x')", "[1] * -1", "[1] * [2]", "[f(1)]"):
        with pytest.raises((ValueError, TypeError)):
            value(text)


def test_a_fine_tuned_hubert_has_no_codebook_and_says_why(hubert, cfg, tmp_path):
    """hubert_ctc of fairseq: remove_pretraining_modules takes final_proj, label_embs_concat stays."""
    tensors = prefixed(fairseq_tensors(hubert, 11), "w2v_encoder.w2v_model.")
    tensors = {name: tensor for name, tensor in tensors.items() if "final_proj" not in name}
    tensors |= {"w2v_encoder.proj.weight": torch.zeros(5, 48), "w2v_encoder.proj.bias": torch.zeros(5)}
    outer = {"_name": "hubert_ctc", "normalize": "${task.normalize}", "w2v_args": cfg}
    content = {"cfg": {"model": outer, "task": {"normalize": False}}, "model": tensors}
    teacher = load_teacher(saved(tmp_path / "model.pt", content))
    assert teacher.codebook is None and "no codebook (the file has label embeddings but no final_proj" in str(
        teacher
    )
    assert "before fine-tuning has both" in teacher.meta["codebook"]
    assert max(differences(teacher, transformers_states(hubert, False, "fairseq"))) < TOLERANCE


def labelled(hubert, cfg, sizes, proj_rows, dictionaries=True, labels=True):
    """Content with label embeddings of several dictionaries; row i of them is all i."""
    rows = sum(sizes)
    tensors = fairseq_tensors(hubert) | {
        "label_embs_concat": torch.arange(rows)[:, None] * torch.ones(1, 16),
        "final_proj.weight": torch.randn(proj_rows, 48),
        "final_proj.bias": torch.randn(proj_rows),
    }
    held = [
        {"symbols": ["<s>", "<pad>", "</s>", "<unk>", *map(str, range(n - 5)), "madeupword0000"]}
        for n in sizes
    ]
    task = cfg["task"] | ({"labels": [f"km{i}" for i, _ in enumerate(sizes)]} if labels else {})
    content = {"cfg": cfg | {"task": task}, "model": tensors}
    return content | ({"task_state": {"dictionaries": held}} if dictionaries else {})


@pytest.mark.parametrize("proj_rows", [16, 32], ids=["tied", "untied"])
@pytest.mark.parametrize("by_name", [False, True])
def test_two_label_sets(proj_rows, by_name, hubert, cfg, tmp_path):
    content = labelled(hubert, cfg, (10, 24), proj_rows)
    if by_name:  # as newer versions keep them
        held = content["task_state"].pop("dictionaries")
        content["task_state"]["pt_dictionaries"] = {"km0": held[0], "km1": held[1]}
    teacher = load_teacher(saved(tmp_path / "model.pt", content))
    codebook = teacher.codebook
    assert codebook.label_embeddings[:, 0].tolist() == [4, 5, 6, 7, 8], "no specials, no filler, no other set"
    assert torch.equal(codebook.final_proj.weight, content["model"]["final_proj.weight"][:16])
    assert torch.equal(codebook.final_proj.bias, content["model"]["final_proj.bias"][:16])
    assert teacher.meta["codebook"] == "5 clusters of the first of 2 label sets"


def test_label_embeddings_without_a_dictionary(hubert, cfg, tmp_path):
    one = load_teacher(saved(tmp_path / "model.pt", labelled(hubert, cfg, (24,), 16, dictionaries=False)))
    assert one.codebook.label_embeddings[:, 0].tolist() == list(range(4, 24))
    assert "the first 4 rows taken for specials" in one.meta["codebook"]
    for proj_rows, labels in ((16, True), (32, True), (32, False)):
        content = labelled(hubert, cfg, (10, 24), proj_rows, dictionaries=False, labels=labels)
        two = load_teacher(saved(tmp_path / "model.pt", content))
        assert two.codebook is None and "2 label sets share 34 embeddings" in str(two)
    content = labelled(hubert, cfg, (10, 24), 16)
    content["task_state"]["dictionaries"].pop()
    other = load_teacher(saved(tmp_path / "model.pt", content))
    assert other.codebook is None and "do not fit dictionaries of [10] symbols" in str(other)


def test_label_embeddings_behind_a_glu(hubert, cfg, tmp_path):
    """target_glu of fairseq: the network is compared with a function of the embeddings, which the codebook holds."""
    content = labelled(hubert, cfg, (24,), 16)
    glu = torch.nn.Linear(16, 32)
    content["model"] |= {"target_glu.0.weight": glu.weight.data, "target_glu.0.bias": glu.bias.data}
    found = load_teacher(saved(tmp_path / "model.pt", content)).codebook.label_embeddings
    with torch.no_grad():
        torch.testing.assert_close(found, F.glu(glu(content["model"]["label_embs_concat"]))[4:23])


# --- distilled ------------------------------------------------------------------------------------------------


def test_distilhubert_as_s3prl_saves_it(tmp_path):
    model = transformers_model("hubert", **SMALL | DISTILHUBERT)
    write_distiller(tmp_path / "states.ckpt", model)
    teacher = load_teacher(tmp_path / "states.ckpt")
    assert teacher.meta["architecture"] == "distiller" and not teacher.config.feature_norm
    assert max(differences(teacher, transformers_states(model, False))) < TOLERANCE
    for settings, words in (
        ({"task_emb_type": "add"}, "task_emb_type is 'add'"),
        ({"attention_type": "sparse"}, "attention_type is 'sparse'"),
        ({"extractor_conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 5 + [(512,2,2)]"}, "kernels"),
        ({"encoder_layers": 10**9}, "encoder_layers is 1000000000"),
    ):
        write_distiller(tmp_path / "states.ckpt", model, **settings)
        assert words in refused(tmp_path / "states.ckpt")
    saved(tmp_path / "states.ckpt", {"Distiller": fairseq_tensors(model), "Config": {"audio": {}}})
    assert "has no 'distiller'" in refused(tmp_path / "states.ckpt")


def test_dphubert_where_nothing_was_pruned(tmp_path):
    model = torchaudio_model("HUBERT_BASE", SMALL_TORCHAUDIO)
    path = tmp_path / "pruned_hubert_base.pth"
    write_dphubert(path, model)
    assert max(differences(load_teacher(path), torchaudio_states(model, False))) < TOLERANCE
    write_dphubert(path, model, normalize_waveform=True)
    assert max(differences(load_teacher(path), torchaudio_states(model, True))) < TOLERANCE
    for settings in (
        {"encoder_num_heads": [4, 3, 4]},
        {"encoder_ff_interm_features": [96, 80, 96]},
        {"encoder_use_attention": [True, False, True]},
        {"encoder_use_feed_forward": [True, True, False]},
        {"encoder_num_heads": [2, 2, 2], "encoder_head_dim": 12},
        {"encoder_remaining_heads": [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3]]},
    ):
        write_dphubert(path, model, **settings)
        said = refused(path)
        assert "pruned by DPHuBERT" in said and (list(settings)[-1] in said)
    content = {"state_dict": model.state_dict(), "config": {"encoder_use_attention": [True]}}
    content["state_dict"]["encoder.transformer.layers.0.attention.hard_concrete_for_heads.log_alpha"] = (
        torch.zeros(4)
    )
    assert "run its prune.py first" in refused(saved(path, content))


def test_dphubert_whose_channels_are_scaled(tmp_path):
    model = torchaudio_model("HUBERT_BASE", SMALL_TORCHAUDIO)
    write_dphubert(tmp_path / "model.pth", model)
    content = torch.load(tmp_path / "model.pth")
    content["state_dict"]["feature_extractor.dummy_weight"][3] = 0.5
    assert "it scales the CNN's output" in refused(saved(tmp_path / "model.pth", content))
