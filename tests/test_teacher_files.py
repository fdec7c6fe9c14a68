"""Files of teachers that must not run, and files that must be refused: damaged, incomplete, of another kind."""

import contextlib
import json
import os
import pickle
import subprocess
import zipfile

import pytest
import torch
from formats import SMALL, fairseq_tensors, transformers_model, write_fairseq, write_folder
from safetensors.torch import load_file, save_file

from kdkit.common.errors import CheckpointError, DownloadError
from kdkit.teachers import load_teacher
from kdkit.teachers.safe_pickle import Inert, read_pickle

# --- what must not run --------------------------------------------------------------------------------------


class Command:
    """Pickled, it asks for a shell command when it is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["cfg", "legacy"])
def test_code_in_a_pickle_does_not_run(form, tmp_path):
    proof, path = tmp_path / "proof", tmp_path / "hubert.pt"
    model = transformers_model("hubert", **SMALL)
    write_fairseq(path, model, clusters=5, form=form, optimizer_history=Command(f"touch {proof}"))
    content = read_pickle(path)
    assert isinstance(content["optimizer_history"], Inert)
    assert content["optimizer_history"].name in ("posix.system", "nt.system")
    assert len(load_teacher(path).codebook.label_embeddings) == 5
    assert not proof.exists()
    with open(tmp_path / "bomb.pkl", "wb") as file:  # the bomb is a real one
        pickle.dump(Command(f"touch {proof}"), file)
    with open(tmp_path / "bomb.pkl", "rb") as file:
        pickle.load(file)
    assert proof.exists()


def test_builtins_and_torch_functions_are_inert_too(tmp_path):
    class Reduce:
        def __init__(self, *call):
            self.call = call

        def __reduce__(self):
            return self.call

    proof = tmp_path / "proof"
    calls = {
        "eval": Reduce(eval, (f"open({str(proof)!r}, 'w')",)),
        "exec": Reduce(exec, (f"open({str(proof)!r}, 'w')",)),
        "getattr": Reduce(getattr, ("text", "upper")),
        "torch": Reduce(torch.save, (1, str(proof))),
        "load": Reduce(torch.load, (str(proof),)),
        "run": Reduce(subprocess.run, (["touch", str(proof)],)),
    }
    torch.save(calls, tmp_path / "calls.pt")
    content = read_pickle(tmp_path / "calls.pt")
    assert all(isinstance(value, Inert) for value in content.values()) and not proof.exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch FloatStorage",
        "torch UntypedStorage",
        "torch._utils _rebuild_tensor_v2",
        "collections defaultdict",
    ],
)
@pytest.mark.parametrize("attribute", ["dtype", "__defaults__", "__init__"])
def test_a_pickle_cannot_alter_what_it_names(tmp_path, name, attribute):
    """Pickle's BUILD sets attributes: here (None, {attribute: "altered"}) on a class or function of torch."""
    named = "c{}\n{}\n".format(*name.split()).encode()
    pairs = b"N}X" + len(attribute).to_bytes(4, "little") + attribute.encode() + b"X\x07\0\0\0altereds\x86"
    altering = named + pairs + b"b0"  # built, then dropped

    def state():
        named = torch.FloatStorage, torch.UntypedStorage, torch._utils._rebuild_tensor_v2
        return [repr(getattr(thing, name, None)) for thing in named for name in (attribute, *vars(thing))]

    before, plain = state(), tmp_path / "plain.pt"
    for form in (True, False):  # zipped, and the form before it, whose first pickle is a number
        torch.save({"x": torch.arange(3)}, plain, _use_new_zipfile_serialization=form)
        path = tmp_path / f"alters{form}.pt"
        if form:
            with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
                for entry in old.namelist():
                    data = old.read(entry)
                    new.writestr(
                        entry, data[:2] + altering + data[2:] if entry.endswith("data.pkl") else data
                    )
        else:
            data = plain.read_bytes()
            path.write_bytes(data[:2] + altering + data[2:])
        with contextlib.suppress(
            CheckpointError
        ):  # torch.load has stand-ins of its own for some of these names
            read_pickle(path)
        assert state() == before
        assert read_pickle(plain)["x"].tolist() == [0, 1, 2]


def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "program.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(CheckpointError, match="TorchScript program"):
        load_teacher(path)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    transformers_model("hubert", **SMALL).save_pretrained(tmp_path)
    return tmp_path


def refused(source) -> str:
    with pytest.raises(CheckpointError) as error:
        load_teacher(source)
    said = str(error.value)
    assert "\n" not in said and len(said) < 600
    return said


def test_a_name_that_is_nothing_lists_what_there_is():
    said = refused("hubert")
    assert "'tiny', 'hubert_base_ls960'" in said and "'owner/name'" in said
    assert "no such teacher" in refused("missing/teacher.pt")


def test_a_wrong_format(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "unknown ending '.txt'" in refused(tmp_path / "notes.txt")
    (tmp_path / "notes.pt").write_text("hello, this is no checkpoint at all")
    assert "not a whole file of torch.save" in refused(tmp_path / "notes.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    assert "holds ['weight']" in refused(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "list" in refused(tmp_path / "list.pt")
    torch.save({"cfg": {}, "model": [1]}, tmp_path / "list.pt")
    assert "holds no tensors by name" in refused(tmp_path / "list.pt")
    assert "config.json: no such file" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "not JSON" in refused(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "hubert.pt"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(name, share, folder):
    whole = folder / name
    if name == "hubert.pt":
        write_fairseq(whole, transformers_model("hubert", **SMALL), clusters=5)
    elif name == "pytorch_model.bin":
        torch.save(load_file(folder / "model.safetensors"), whole)
        (folder / "model.safetensors").unlink()
    data = whole.read_bytes()
    whole.write_bytes(data[: int(share * len(data))])
    said = refused(whole if name == "hubert.pt" else folder)
    assert name in said and "truncated" in said


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.1.attention.k_proj.weight",
        "feature_projection.projection.weight",
        "encoder.layer_norm.bias",
    ],
)
def test_a_missing_tensor(name, folder):
    change_tensors(folder, lambda tensors: tensors.pop(name))
    assert "missing" in refused(folder)


def test_a_missing_layer(folder):
    def without_the_last(tensors):
        for name in [n for n in tensors if ".layers.2." in n]:
            del tensors[name]

    change_tensors(folder, without_the_last)
    assert "missing ['encoder.layers.2." in refused(folder)


def test_an_extra_tensor(folder):
    change_tensors(
        folder, lambda tensors: tensors.update({"encoder.layers.1.adapter.weight": torch.zeros(2)})
    )
    said = refused(folder)
    assert "unexpected ['encoder.layers.1.adapter.weight']" in said


def test_a_tensor_of_another_shape(folder):
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(2, 2)}))
    assert "other shapes" in refused(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'; kdkit knows hubert, wav2vec2, wavlm"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "strides [5, 2, 2, 2, 2, 2, 1], a frame every 10 ms"),
        ({"conv_stride": 5}, "not lists of whole numbers"),
        ({"add_adapter": True}, "add_adapter is True"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm is True"),
        ({"num_attention_heads": None}, "do not say 'num_attention_heads'"),
        ({"num_attention_heads": 5}, "dim 48 is not a multiple of heads 5"),
    ],
)
def test_another_architecture(changes, words, folder):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    assert words in refused(folder)


def test_other_convolutions(tmp_path):
    model = transformers_model("hubert", **SMALL | {"conv_kernel": [10, 3, 3, 3, 3, 3, 2]})
    model.save_pretrained(tmp_path)
    assert "convolutions have kernels [10, 3, 3, 3, 3, 3, 2]" in refused(tmp_path)


def test_another_sample_rate(folder):
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    assert "a model for 8000 Hz" in refused(folder)
    tensors = fairseq_tensors(transformers_model("hubert", **SMALL))
    cfg = {"model": {}, "task": {"sample_rate": 24_000}}
    torch.save({"cfg": cfg, "model": tensors}, folder / "hubert.pt")
    assert "a model for 24000 Hz" in refused(folder / "hubert.pt")


def test_fairseq_files_that_do_not_fit(tmp_path):
    path, model = tmp_path / "hubert.pt", transformers_model("hubert", **SMALL)
    tensors = fairseq_tensors(model, 5)
    cfg = {"model": {"encoder_attention_heads": 4, "layer_norm_first": False}, "task": {}}

    def saved(tensors, cfg=cfg):
        torch.save({"cfg": cfg, "model": tensors}, path)
        return path

    assert "do not say 'encoder_attention_heads'" in refused(saved(tensors, {"model": {}, "task": {}}))
    relu = {"model": cfg["model"] | {"activation_fn": "relu"}, "task": {}}
    assert "activation_fn is 'relu'" in refused(saved(tensors, relu))
    assert "is missing" in refused(saved({"decoder.embed.weight": torch.zeros(2)})), "another architecture"
    assert "unexpected ['decoder.weight']" in refused(saved(tensors | {"decoder.weight": torch.zeros(2)}))
    assert "no whole final_proj" in refused(
        saved({n: t for n, t in tensors.items() if n != "final_proj.bias"})
    )
    odd = tensors | {"final_proj.weight": torch.zeros(33, 48), "final_proj.bias": torch.zeros(33)}
    assert "do not fit a model of width 48" in refused(saved(odd))


@pytest.mark.parametrize("form", ["safetensors shards", "bin shards"])
def test_shards_that_are_missing_damaged_or_of_another_model(form, tmp_path):
    write_folder(tmp_path, transformers_model("hubert", **SMALL), form)
    [index] = tmp_path.glob("*.index.json")
    shards = sorted(path for path in tmp_path.iterdir() if "-of-" in path.name)
    last = shards[-1].read_bytes()
    shards[-1].unlink()
    said = refused(tmp_path)
    assert f"1 of {len(shards)} files of weights are missing, the first is {shards[-1].name}" in said
    shards[-1].write_bytes(last[: len(last) // 2])
    assert shards[-1].name in (said := refused(tmp_path)) and "truncated" in said
    shards[-1].write_bytes(shards[0].read_bytes())
    said = refused(tmp_path)
    assert shards[-1].name in said and "is missing, though" in said
    content = json.loads(index.read_text())
    for strange in ("../model.safetensors", "/etc/passwd", "weights.txt", 3):
        index.write_text(json.dumps(content | {"weight_map": {"encoder.weight": strange}}))
        assert f"names {strange!r}, which is no file of weights beside it" in refused(tmp_path)
    index.write_text("{}")
    assert "has no 'weight_map'" in refused(tmp_path)


def test_code_in_a_shard_does_not_run(tmp_path):
    write_folder(tmp_path, transformers_model("hubert", **SMALL), "bin shards")
    shard, proof = tmp_path / "pytorch_model-00002-of-00003.bin", tmp_path / "proof"
    content = {name: tensor.clone() for name, tensor in read_pickle(shard).items()}
    torch.save(content | {"lm_head.history": Command(f"touch {proof}")}, shard)
    assert load_teacher(tmp_path).config.layers == 3 and not proof.exists()


def test_a_checksum_that_a_file_does_not_have(folder):
    path = folder / "hubert.pt"
    write_fairseq(path, transformers_model("hubert", **SMALL))
    with pytest.raises(DownloadError, match=f"hubert.pt: has SHA-256 [0-9a-f]{{64}}, not {'0' * 64}"):
        load_teacher(path, sha256="0" * 64)
    for source in (folder, "owner/name"):  # of neither is there one checksum
        with pytest.raises(CheckpointError, match="a folder has no SHA-256"):
            load_teacher(source, sha256="0" * 64)
