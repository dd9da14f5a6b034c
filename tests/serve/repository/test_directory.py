# SPDX-License-Identifier: Apache-2.0
"""Names, model.toml, what a directory holds, and files that shall not be read."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, save_model
from small_models import ones, put, scale, two_outputs

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import names
from fastinfer.serve.repository.directory import Directory
from fastinfer.serve.repository.loading import load_version
from fastinfer.serve.repository.programs import ProgramCache
from fastinfer.serve.repository.settings import Policy, Settings, parse

HOSTILE = [
    "", ".", "..", "../m", "a/b", "a\\b", "/etc", "a\0b", "a\r\nb", "\x1b[31m", ".hidden", "-x", "ä", "a" * 129, "a b", "a:b", "%2e",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(tmp_path, name):
    for check in (names.check_name, Directory(tmp_path).find):
        with pytest.raises(ServeError) as info:
            check(name)
        assert info.value.kind is Kind.INVALID_ARGUMENT and str(info.value).isascii() and str(info.value).isprintable()


@pytest.mark.parametrize("version", ["", "0", "01", "-1", "+1", "1.0", "1 ", "1\n", "9" * 19, "¹", "one"])
def test_hostile_versions(version):
    with pytest.raises(ServeError):
        names.check_version(version)


@pytest.mark.parametrize(
    "path", ["", "/x", "../x", "a/../x", "a//b", "a/", "C:\\x", "a\\b", "a\0", "x.", ".x", "a/.b", "/".join("a" * 9)]
)
def test_hostile_files(path):
    with pytest.raises(ServeError):
        names.check_file(path)


@given(st.text())
def test_any_text_is_a_good_name_or_a_serve_error(text):
    for check in (names.check_name, names.check_version, names.check_file):
        try:
            assert check(text) == text
        except ServeError as e:
            assert str(e).isprintable()
        else:
            assert ".." not in text.split("/") and not text.startswith(("/", ".")) and "\0" not in text


# ---------------------------------------------------------------------------------------------------------- model.toml


def test_settings_say_all(tmp_path):
    s = parse(b"""
        description = "d"
        owner = "o"
        labels = {a = "b"}
        precision = "bf16"
        threads = 2
        versions = {latest = 3}
        [batching]
        max_batch = 4
        max_delay = 0.001
        max_queue = 5
        [limits]
        timeout = 2
        [sequence]
        state = {h = "h_out"}
        [[inputs]]
        name = "x"
        datatype = "FP32"
        shape = [-1, 4]
        """)
    assert (s.description, s.owner, s.labels, s.precision, s.threads) == ("d", "o", {"a": "b"}, "bf16", 2)
    assert s.versions == Policy(latest=3) and s.batching.max_delay == 0.001 and s.limits.timeout == 2.0
    assert s.sequence.state == {"h": "h_out"} and s.inputs[0].shape == (-1, 4)
    assert parse(b"") == Settings()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("desciption = 'x'", "did you mean 'description'?"),
        ("[batching]\nmaxbatch = 3", "batching: no key is called 'maxbatch'; did you mean 'max_batch'?"),
        ("zzz = 1", "known: description"),
        ("threads = 0", "threads: given '0', needed: a whole number from 1 to 64"),
        ("threads = true", "a whole number"),
        ("[batching]\nmax_delay = nan", "a number from 0 to 60"),
        ("[batching]\nmax_delay = inf", "a number from 0 to 60"),
        ("batching = 3", "needed: a table"),
        ("labels = {a = 1}", "labels.a"),
        ("versions = ['01']", "versions"),
        ("versions = []", "versions"),
        ("file = '../x.onnx'", "no file name"),
        ("[[inputs]]\ndatatype = 'FP32'", "tables with a name"),
        ("[[inputs]]\nname = 'x'\ndatatype = 'FP33'", "one of BOOL"),
        ("a = [", "model.toml"),
        ("a = " + "[" * 100_000, "model.toml"),
        ("#" * (1 << 20) + "\n", "at most"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_say_why(text, part):
    with pytest.raises(ServeError) as info:
        parse(text.encode())
    assert info.value.kind is Kind.INVALID_ARGUMENT and part in str(info.value) and len(str(info.value)) < 600


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_a_serve_error(data):
    try:
        parse(data)
    except ServeError:
        pass


@given(st.lists(st.integers(1, 50).map(str), unique=True), st.integers(1, 5))
def test_policies(versions, n):
    ordered = sorted(versions, key=int)
    assert Policy(latest=n).choose(versions) == ordered[-n:]
    assert Policy(all=True).choose(versions) == ordered
    assert Policy(specific=("9", "3")).choose(versions) == ["3", "9"]


# --------------------------------------------------------------------------------------------------------- what is there


def test_what_is_left_alone(tmp_path):
    put(tmp_path, "m", 2, scale(2))
    for folder in (".git", ".fastinfer", "m/01", "m/tmp", "m/-1", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "readme.txt").write_text("x")
    d = Directory(tmp_path)
    assert d.names() == ["empty", "m"]
    assert list(d.find("m").versions) == ["2"] and d.find("empty").versions == {}
    with pytest.raises(ServeError, match="no model is called 'readme'"):
        d.find("readme")


def test_which_file_is_the_model(tmp_path):
    folder = put(tmp_path, "m", 1, scale(2), file="net.onnx")
    find = lambda: Directory(tmp_path).find("m").versions["1"]  # noqa: E731
    assert find().model_file() == "net.onnx"
    (folder / "other.onnx").write_bytes(b"")
    with pytest.raises(ServeError, match="holds 2 .onnx files"):
        find().model_file()
    assert find().model_file("other.onnx") == "other.onnx"
    (folder / "model.onnx").write_bytes(b"")
    assert find().model_file() == "model.onnx"
    with pytest.raises(ServeError, match="no model file"):
        find().model_file("none.onnx")


def test_links_stay_inside(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(outside, "m", 1, scale(2))
    put(root, "real", 1, scale(2))
    os.symlink(root / "real", root / "alias")
    assert list(Directory(root).find("alias").versions) == ["1"]
    os.symlink(outside / "m", root / "escape")
    os.mkdir(root / "n")
    os.symlink(outside / "m" / "1", root / "n" / "1")
    os.makedirs(root / "o" / "1")
    os.symlink(outside / "m" / "1" / "model.onnx", root / "o" / "1" / "model.onnx")
    os.symlink(outside / "m" / "1" / "model.onnx", root / "bare.onnx")
    os.makedirs(root / "p" / "1")
    os.symlink("/etc/hostname", root / "p" / "model.toml")
    os.makedirs(root / "q" / "1")
    os.mkfifo(root / "q" / "1" / "model.onnx")
    for name in ("escape", "n", "o", "bare", "p", "q"):
        with pytest.raises(ServeError) as info:
            Directory(root).find(name)
        assert info.value.kind is Kind.INVALID_ARGUMENT and str(tmp_path) not in str(info.value)


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/hostname", "a/../../secret", "..\\secret", "C:\\secret", "x\0y", "", "link", "dir/secret"],
)
def test_external_data_stays_inside_the_version(tmp_path, location):
    """Cases 1 and 2: what the model names as its weights is a file of the version, or the load fails without a path."""
    folder = put(tmp_path, "m", 1, scale(2))
    (tmp_path / "m" / "secret").write_bytes(b"\0" * 64)
    os.symlink(tmp_path / "m" / "secret", folder / "link")
    os.symlink(tmp_path / "m", folder / "dir")
    model = scale(2)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    if location == "link":
        (tmp_path / "m" / "secret").rename(tmp_path / "secret")
        os.unlink(folder / "link")
        os.symlink(tmp_path / "secret", folder / "link")
    with pytest.raises(ServeError) as info:
        load_version(Directory(tmp_path).find("m").versions["1"], Settings())
    assert str(tmp_path) not in str(info.value)


def test_external_data_beside_the_model(tmp_path):
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    save_model(scale(3), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    loaded = load_version(Directory(tmp_path).find("m").versions["1"], Settings())
    assert loaded.model.run({"x": ones()})["y"].tolist() == [[3, 3, 3, 3]]


def test_samples_warm_up_or_fail_the_load(tmp_path):
    folder = put(tmp_path, "m", 1, two_outputs())
    np.savez(folder / "samples.npz", a=np.ones((1, 2), np.float32), b=np.ones((1, 2), np.float32))
    find = Directory(tmp_path).find
    load_version(find("m").versions["1"], Settings())
    np.savez(folder / "samples.npz", a=np.ones((1, 2), np.float32))
    with pytest.raises(ServeError, match="missing input"):
        load_version(find("m").versions["1"], Settings())
    np.savez(folder / "samples.npz", a=np.array([object()]))  # would be a pickle
    with pytest.raises(ServeError, match="samples"):
        load_version(find("m").versions["1"], Settings())
    (folder / "samples.npz").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(ServeError, match="samples"):
        load_version(find("m").versions["1"], Settings())


def test_samples_that_are_a_bomb_are_not_unpacked(tmp_path):
    folder = put(tmp_path, "m", 1, scale(2))
    with zipfile.ZipFile(folder / "samples.npz", "w", zipfile.ZIP_DEFLATED) as z, z.open("x.npy", "w") as entry:
        for _ in range(260):
            entry.write(bytes(1 << 20))
    assert (folder / "samples.npz").stat().st_size < 1 << 20
    with pytest.raises(ServeError, match="bytes unpacked"):
        load_version(Directory(tmp_path).find("m").versions["1"], Settings())
    huge = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(folder / "samples.npz", "w") as z:
        z.writestr("x.npy", huge)
    with pytest.raises(ServeError, match="samples cannot be read"):
        load_version(Directory(tmp_path).find("m").versions["1"], Settings())


def test_what_cannot_be_expressed_is_refused(tmp_path):
    model = scale(2)
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    model.graph.node.append(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN))
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT8E4M3FN, ["n", 4]))
    put(tmp_path, "m", 1, model)
    with pytest.raises(ServeError) as info:
        load_version(Directory(tmp_path).find("m").versions["1"], Settings())
    assert info.value.kind is Kind.UNSUPPORTED and "float8" in str(info.value)


# -------------------------------------------------------------------------------------------------------------- cache


def test_programs_are_kept_and_checked(tmp_path, monkeypatch):
    put(tmp_path / "r", "m", 1, scale(2))
    cache = ProgramCache(tmp_path / "c")
    version = Directory(tmp_path / "r").find("m").versions["1"]
    load = lambda: load_version(version, Settings(), cache).model.run({"x": ones()})["y"][0, 0]  # noqa: E731
    assert load() == 2
    (program,) = (tmp_path / "c").glob("*.safetensors")
    assert program.stat().st_mode & 0o777 == 0o600 and (tmp_path / "c").stat().st_mode & 0o777 == 0o700
    assert len(list((tmp_path / "c").iterdir())) == 2
    compiled = []
    from fastinfer.serve.repository import loading

    original = loading.compile
    monkeypatch.setattr(loading, "compile", lambda *a, **k: compiled.append(1) or original(*a, **k))
    assert load() == 2 and not compiled
    data = bytearray(program.read_bytes())
    data[-1] ^= 1
    program.write_bytes(data)
    assert load() == 2 and len(compiled) == 1  # damaged: made anew
    program.chmod(0o666)
    assert load() == 2 and len(compiled) == 2  # others could have written it
    os.link(program, tmp_path / "second-name")
    assert load() == 2 and len(compiled) == 3
    os.truncate(program, 10)
    assert load() == 2 and len(compiled) == 4
    program.unlink()
    os.symlink(tmp_path / "second-name", program)
    assert load() == 2 and len(compiled) == 5
    put(tmp_path / "r", "m", 1, scale(3))
    assert load() == 3 and len(compiled) == 6


def test_a_cache_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    os.symlink(tmp_path / "open", tmp_path / "link")
    for name in ("open", "link"):
        with pytest.raises(ServeError, match="no other can write"):
            ProgramCache(tmp_path / name)


def test_the_cache_forgets_the_longest_unused(tmp_path):
    put(tmp_path / "r", "m", 1, scale(1))
    cache = ProgramCache(tmp_path / "c", max_files=2)
    for n in range(4):
        put(tmp_path / "r", "m", 1, scale(n))
        load_version(Directory(tmp_path / "r").find("m").versions["1"], Settings(), cache)
    assert len(list((tmp_path / "c").glob("*.safetensors"))) == 2 == len(list((tmp_path / "c").glob("*.json")))


def test_large_models_are_compiled_in_a_process_of_their_own(tmp_path, monkeypatch):
    from fastinfer.serve.repository import compiling, loading

    monkeypatch.setattr(compiling, "LARGE", 1)
    monkeypatch.setattr(loading, "compile", None)
    put(tmp_path / "r", "m", 1, scale(2))
    cache = ProgramCache(tmp_path / "c")
    find = lambda: Directory(tmp_path / "r").find("m").versions["1"]  # noqa: E731
    assert load_version(find(), Settings(), cache).model.run({"x": ones()})["y"][0, 0] == 2
    (tmp_path / "r" / "m" / "1" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ServeError) as info:
        load_version(find(), Settings(), cache)
    assert "not an ONNX model" in str(info.value) and str(tmp_path) not in str(info.value)
    assert len(list((tmp_path / "c").iterdir())) == 2  # nothing half-done is left
    monkeypatch.setattr(compiling.sys, "executable", "/bin/false")
    with pytest.raises(ServeError, match="ended with exit code 1"):
        load_version(find(), Settings(), cache)
