"""Settings and tensors of foreign files that are damaged or mean harm: one clear line, no hang, no giant allocation."""

import argparse
import json
import math
import os
import re
import time
import zipfile

import pytest
import torch
from formats import (
    SMALL,
    AnyNode,
    DictConfig,
    Mode,
    fairseq_settings,
    fairseq_tensors,
    foreign_module,
    transformers_model,
    waves,
    write_fairseq,
)
from safetensors.torch import load_file, save_file

from kdkit.common.errors import CheckpointError
from kdkit.teachers import load_teacher
from kdkit.teachers.safe_pickle import Inert, opened
from kdkit.teachers.settings import Settings

LARGEST = 600  # characters of a message


def refused(source, *words) -> str:
    begun = time.perf_counter()
    with pytest.raises(CheckpointError) as error:
        load_teacher(source)
    assert time.perf_counter() - begun < 20, "the machine may be busy"
    said = str(error.value)
    assert "\n" not in said and len(said) < LARGEST
    assert all(word in said for word in words), said
    return said


@pytest.fixture(scope="module")
def hubert():
    return transformers_model("hubert", **SMALL)


@pytest.fixture
def write(hubert, tmp_path):
    """Writes a fairseq file with other settings, tasks, tensors or content; gives its path."""
    tensors, (model, task) = fairseq_tensors(hubert, 11), fairseq_settings(hubert, False)

    def write(model=model, task=task, other=None, changes=None, **content):
        cfg = content.pop("cfg", {"model": model, "task": task})
        path = tmp_path / "hubert.pt"
        torch.save({"cfg": cfg, "model": tensors | (changes or {})} | content, path)
        return path

    write.model, write.task, write.tensors = model, task, tensors
    return write


# --- fairseq --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["x", None, 0, -1, 2.0, True, 10**9, [4], {}, math.nan, "4", torch.tensor(4)]
)
@pytest.mark.parametrize("name", ["encoder_attention_heads", "encoder_layers"])
def test_numbers_of_fairseqs_settings(name, value, write):
    path = write(write.model | {name: value})
    if name == "encoder_layers" and value is None:  # tensors tell it
        assert load_teacher(path).config.layers == 3
        return
    refused(path, "hubert.pt", name)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        *(({"layer_norm_first": value}, "layer_norm_first") for value in ("x", 5, None, [], "false")),
        *(({"logit_temp": value}, "logit_temp") for value in ("x", 0, -1, math.nan, math.inf, 1e308, True)),
        *(({"activation_fn": value}, "activation_fn") for value in ("relu", 5, ["gelu"])),
        ({"relative_position_embedding": True, "max_distance": 10**12}, "max_distance"),
        ({"relative_position_embedding": "x"}, "relative_position_embedding"),
        ({"w2v_args": 5}, "w2v_args"),
        ({"w2v_args": "x"}, "w2v_args"),
        ({"w2v_args": {}}, "encoder_attention_heads"),
        ({"encoder_attention_heads": "x" * 10**6}, "encoder_attention_heads"),
        ({"encoder_attention_heads": 5}, "not a multiple of heads 5"),
    ],
)
def test_other_settings_of_fairseq(changes, word, write):
    refused(write(write.model | changes), "hubert.pt", word)


@pytest.mark.parametrize(
    "cfg", [5, "x", [1], {"model": 5}, {"model": None}, {}, {"model": {}, "task": 7}, math.nan]
)
def test_settings_that_are_none(cfg, write):
    refused(write(cfg=cfg), "hubert.pt")


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (8000, "8000 Hz"),
        ("8000", "'8000' Hz"),
        ("fast", "no sample rate"),
        (True, "True Hz"),
        ([16_000], "no sample rate"),
        (10**400, "no sample rate"),
        (math.nan, "nan Hz"),
    ],
)
def test_a_rate_that_is_another(rate, words, write):
    refused(write(task=write.task | {"sample_rate": rate}), words)


@pytest.mark.parametrize("rate", [16_000, 16_000.0, "16000", " 16000.0", None])
def test_a_rate_given_as_text(rate, write):
    assert load_teacher(write(task=write.task | {"sample_rate": rate})).config.layers == 3


def test_normalize_that_is_text(write):
    refused(write(task=write.task | {"normalize": "x"}), "normalize is 'x'")
    assert not load_teacher(
        write(task=write.task | {"normalize": "${model.normalize}"})
    ).config.normalise_input


def laughing(depth: int = 60):
    """A nest of which every level holds the one below ten times over: 10^60 when it is written out."""
    nest = {"encoder_layers": 3}
    for _ in range(depth):
        nest = dict.fromkeys("abcdefghij", nest)
    return nest


def test_settings_that_hold_themselves_or_grow_without_end(write):
    cyclic = dict(write.model)
    cyclic["model"] = cyclic["self"] = cyclic
    assert load_teacher(write(cyclic)).config.layers == 3, "what is not asked for is not opened"
    assert load_teacher(write(write.model | {"history": laughing()})).config.layers == 3
    refused(write(laughing()), "do not say")
    refused(write(cfg=laughing()), "do not say")
    refused(write(write.model | {"encoder_layers": laughing()}), "encoder_layers is {'a'")
    loop = []
    loop.append(loop)
    refused(write(write.model | {"encoder_layers": loop}), "encoder_layers is")
    refused(write(cfg=loop), "not names and values")
    with foreign_module("omegaconf.dictconfig", DictConfig, AnyNode):
        node = AnyNode(None)
        node._val = node
        path = write(write.model | {"encoder_attention_heads": node})
    refused(path, "do not say 'encoder_attention_heads'")


def test_one_level_is_opened():
    inert = type("Inert", (Inert,), {"name": "argparse.Namespace"})()
    inert.content = {"layers": 3, "self": inert}
    assert opened(inert) is inert.content and opened([inert]) == [inert]
    assert Settings(inert, "file").section("self").section("self").whole("layers", 1, 5) == 3


def test_enums_and_namespaces(write):
    with foreign_module("fairseq_enums.constants", Mode):
        path = write(
            cfg=None,
            args=argparse.Namespace(**write.model | write.task | {"extractor_mode": Mode.layer_norm}),
        )
    assert load_teacher(path).config.layers == 3


@pytest.mark.parametrize(
    "state",
    [5, "x", [], {"dictionaries": 5}, {"dictionaries": [{"symbols": None}]}, {"dictionaries": [5, {}]}],
)
def test_dictionaries_that_are_none(state, write):
    teacher = load_teacher(write(task_state=state))
    expected = None if isinstance(state, dict) and state["dictionaries"] != 5 else 11
    assert (teacher.codebook and len(teacher.codebook.label_embeddings)) == expected


@pytest.mark.parametrize("name", ["label_embs_concat", "final_proj.weight", "final_proj.bias"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 0), (15, 16, 1), (2, 3)])
def test_a_codebook_of_other_shapes(name, shape, write):
    refused(write(changes={name: torch.zeros(shape)}), "hubert.pt", "damaged")


def test_a_codebook_of_no_values(write):
    for bad in (torch.full((15, 16), math.nan), torch.zeros(15, 16, dtype=torch.int32), 5):
        refused(write(changes={"label_embs_concat": bad}), "hubert.pt", "damaged")


# --- tensors --------------------------------------------------------------------------------------------------

KEY = "encoder.layers.0.self_attn.k_proj"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{KEY}.bias": torch.zeros(())}, "have shapes [(48,), (), (48,)]"),
        ({f"{KEY}.bias": torch.zeros(1, 32)}, "have shapes"),
        ({f"{KEY}.weight": torch.zeros(48, 47)}, "have shapes"),
        ({f"{KEY}.bias": 5}, "no tensor"),
        ({f"{KEY}.bias": None}, "no tensor"),
        ({f"{KEY}.bias": torch.zeros(48).to_sparse()}, ""),
        ({"encoder.layers.0.fc1.weight": torch.zeros(())}, "has shape ()"),
        ({"encoder.layers.0.fc1.weight": torch.zeros(0, 48)}, "has shape (0, 48)"),
        ({"feature_extractor.conv_layers.0.0.weight": torch.zeros(8)}, "3 axes are needed"),
        ({"encoder.pos_conv.0.weight_v": torch.zeros(48)}, "3 axes are needed"),
        ({"encoder.layers.0.fc1.bias": torch.full((96,), math.nan)}, "not finite"),
        ({"encoder.layers.0.fc1.bias": torch.zeros(96, dtype=torch.int64)}, "is int64"),
        ({"encoder.layers.0.fc1.bias": torch.zeros(96, dtype=torch.complex64)}, "is complex64"),
        ({"encoder.layers.99999999999999.fc1.bias": torch.zeros(96)}, "unexpected"),
    ],
)
def test_tensors_that_are_damaged(changes, words, write):
    refused(write(changes=changes), "hubert.pt", words)


def test_one_bit_of_a_file_that_tipped_over(write):
    """torch.load does not look at the checksums that torch.save writes; a changed weight would go unseen."""
    path = write()
    data = bytearray(path.read_bytes())
    where = data.find(write.tensors["encoder.layers.1.fc1.weight"].numpy().tobytes()[:64])
    data[where + 33] ^= 0x10
    path.write_bytes(data)
    refused(path, "hubert.pt", "Bad CRC-32")


def test_a_file_without_checksums(write):
    """As torch writes it after ``torch.serialization.set_crc32_options(False)``, from torch 2.6 on."""
    path = write()
    data = bytearray(path.read_bytes())
    for entry in re.finditer(rb"PK\x01\x02", data):  # of the directory at the archive's end
        data[entry.start() + 16 : entry.start() + 20] = bytes(4)
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert not any(record.CRC for record in archive.infolist())
    assert load_teacher(path).config.layers == 3


# --- Hugging Face ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(hubert, tmp_path):
    hubert.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_hidden_layers", (0, -1, 10**9, "x", 2.0, True, [], "1e9")),
        ("num_attention_heads", (0, -1, 10**9, "x", 4.0, True, {})),
        ("do_stable_layer_norm", (5, "false", "x", [])),
        ("feat_extract_norm", ("x", 5, True)),
        ("feat_proj_layer_norm", (5, "x")),
        ("layer_norm_eps", (1e-6, "x", True)),
        ("hidden_act", (5, ["gelu"])),
        ("model_type", (5, [], {}, None, "x" * 10**6)),
        ("conv_stride", (5, "x", [5, 2], [5, 2, 2, 2, 2, 2, 2.0], [10**9] * 7)),
        ("conv_kernel", ([3] * 7, {})),
    ],
)
def test_a_config_of_wrong_types(name, values, folder):
    good = json.loads((folder / "config.json").read_text())
    for value in values:
        (folder / "config.json").write_text(json.dumps(good | {name: value}))
        refused(folder, str(folder))


def test_a_config_that_is_not_of_the_tensors(folder):
    good = json.loads((folder / "config.json").read_text())
    for changes, words in (
        ({"feat_extract_norm": "layer"}, "missing"),
        ({"num_hidden_layers": 4}, "missing"),
        ({"num_hidden_layers": 2}, "unexpected"),
        ({"feat_proj_layer_norm": False}, "unexpected"),
    ):
        (folder / "config.json").write_text(json.dumps(good | changes))
        refused(folder, words)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**5,
        '{"a":' * 10**5,
        "",
        "null",
        "[]",
        "5",
        "\xff",
        '{"num_hidden_layers": ' + "9" * 5000 + "}",
    ],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json"])
def test_what_is_no_config(name, text, folder):
    (folder / name).write_bytes(text.encode("latin-1"))
    refused(folder, name)


@pytest.mark.parametrize(
    "sound", [{"do_normalize": "x"}, {"do_normalize": 1}, {"sampling_rate": "x"}, {"sampling_rate": 8000}]
)
def test_settings_of_the_sound(sound, folder):
    for name, content in (
        ("processor_config.json", {"feature_extractor": sound}),
        ("preprocessor_config.json", sound),
    ):
        (folder / name).write_text(json.dumps(content))
        refused(folder, name)
        (folder / name).unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": 5}))
    refused(folder, "processor_config.json: feature_extractor")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_in_place_of_files(folder):
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(folder / "kept")
        os.mkfifo(folder / name)
        refused(folder)
        (folder / name).unlink()
        (folder / "kept").rename(folder / name)
    os.mkfifo(folder / "pipe.pt")
    refused(folder / "pipe.pt", "no such teacher")


@pytest.mark.parametrize(
    "change", [lambda t: t.fill_(math.nan), lambda t: t.long(), lambda t: t.to(torch.int8)]
)
def test_weights_of_no_use(change, folder):
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    save_file(tensors | {name: change(tensors[name].clone())}, folder / "model.safetensors")
    refused(folder, "model.safetensors", "ffn_out.weight")


# --- what is given in place of a teacher --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("https://huggingface.co/facebook/hubert-base-ls960", "is a URL; give 'facebook/hubert-base-ls960'"),
        ("https://huggingface.co/ntu-spml/distilhubert/tree/main", "is a URL; give 'ntu-spml/distilhubert'"),
        ("https://dl.fbaipublicfiles.com/hubert/hubert_base_ls960.pt", "is a URL; download it first"),
        ("s3://bucket/model.pt", "is a URL; download it first"),
        ("x" * 5000, "no such teacher"),
        ("x/" * 3000 + "model.pt", "no such teacher"),
        ("", ""),
        ("~nobody-of-this-name/model.pt", "no such teacher"),
    ],
)  # fmt: skip
def test_what_is_no_file(source, words):
    refused(source, words)


def test_the_home_folder(hubert, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_fairseq(tmp_path / "hubert.pt", hubert)
    assert load_teacher("~/hubert.pt").config.layers == 3
    batch, lengths = waves()
    assert load_teacher("~/hubert.pt").hidden(batch, lengths).last.isfinite().all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
            "a Git-LFS pointer, not the file itself",
        ),
        (b"<!doctype html>\n<html>", "a web page, not the file itself"),
        (b"", "an empty file"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "hubert.pt", "config.json"])
def test_what_lies_in_place_of_a_file(name, content, words, folder):
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    refused(folder / name if name == "hubert.pt" else folder, name, words)


def test_settings_name_their_section():
    with pytest.raises(CheckpointError, match=r"file\.pt: task: normalize is 5"):
        Settings({"task": {"normalize": 5}}, "file.pt").section("task").flag("normalize")
    with pytest.raises(CheckpointError, match=r"file\.pt: norm is 'x': choose 'group' or 'layer'"):
        Settings({"norm": "x"}, "file.pt").choice("norm", ("group", "layer"))
    with pytest.raises(CheckpointError, match="tau is inf: a number from 0 to 1"):
        Settings({"tau": math.inf}, "file.pt").number("tau", 0, 1)
    assert Settings({}, "file.pt").number("tau", 0, 1, 0.5) == 0.5
