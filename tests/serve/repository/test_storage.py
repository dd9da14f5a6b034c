# SPDX-License-Identifier: Apache-2.0
"""Repositories in file systems of fsspec's, and their mirrors."""

from __future__ import annotations

import json
import uuid

import pytest
from small_models import put, scale
from test_over_http import net
from test_push import kind_of

from fastinfer.cli.app import INPUT, OK, run
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import releases
from fastinfer.serve.repository.directory import Directory
from fastinfer.serve.repository.loading import load_version
from fastinfer.serve.repository.log import Log
from fastinfer.serve.repository.settings import Settings
from fastinfer.serve.repository.signing import Signer, Trust, load_trust, new_key
from fastinfer.serve.repository.storage import Storage

pytest.importorskip("fsspec")


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    return f"memory://{uuid.uuid4().hex}/models" if request.param == "memory" else f"file://{tmp_path}/store"


def push(url, source, model="m", **given):
    given = {"version": "", "signer": None, "settings": b""} | given
    return Storage(url).push(model, source, by="", report=lambda s: None, **given).version


def mirror(url, root, **given):
    return Storage(url).mirror(root, report=lambda s: None, **given)


def test_push_mirror_serve(url, tmp_path):
    one, two = net(tmp_path / "one", 1), net(tmp_path / "two", 2, 1000)
    assert [push(url, one, settings=b"owner = 'a'"), push(url, two), push(url, one, model="other")] == ["1", "2", "1"]
    assert kind_of(push, url, one, version="2") is Kind.ALREADY_EXISTS
    root = tmp_path / "root"
    root.mkdir()
    assert mirror(url, root) == ["m/1", "m/2", "other/1"] and mirror(url, root) == []
    found = Directory(root).find("m")
    assert list(found.versions) == ["1", "2"] and found.settings.owner == "a"
    assert (root / "m" / "2" / "more" / "ballast.bin").read_bytes() == (two / "more" / "ballast.bin").read_bytes()
    assert load_version(found.versions["2"], Settings()).model.run({"x": [[1, 1, 1, 1]]})["y"][0, 0] == 2
    assert [e.action for e in Log(root).entries("m")] == ["push", "push"]
    few = tmp_path / "few"
    few.mkdir()
    assert mirror(url, few, latest=1) == ["m/2", "other/1"]
    Storage(url).remove("m", "1")
    assert [(v.model, v.version) for v in Storage(url).listing()] == [("m", "2"), ("other", "1")]
    assert list(Directory(root).find("m").versions) == ["1", "2"]  # a mirror takes nothing away
    assert Storage(url).pull("m", "", tmp_path / "out")[0] == "2"
    assert (tmp_path / "out" / "w.bin").read_bytes() == (two / "w.bin").read_bytes()


def test_what_was_changed_in_the_store_does_not_come_in(url, tmp_path):
    storage = Storage(url)
    push(url, net(tmp_path / "n", 3))
    root = tmp_path / "root"
    root.mkdir()
    at = lambda name: storage._path("m", "1", name)  # noqa: E731
    good = storage._fs.cat_file(at("w.bin"))
    for bad in (bytes(len(good)), good[:-1], good + b"x"):
        storage._fs.pipe_file(at("w.bin"), bad)
        with pytest.raises(ServeError):
            mirror(url, root)
        assert not (root / "m").exists()
        assert kind_of(storage.pull, "m", "1", tmp_path / "out") is Kind.INVALID_ARGUMENT
        assert not (tmp_path / "out").exists()
    storage._fs.pipe_file(at("w.bin"), good)
    manifest = json.loads(storage._fs.cat_file(at("manifest.json")))
    for change in ({"version": "2"}, {"model": "x"}, {"files": {"../../x": {"size": 1, "sha256": "0" * 64}}}):
        storage._fs.pipe_file(at("manifest.json"), json.dumps(manifest | change).encode())
        assert kind_of(mirror, url, root) is Kind.INVALID_ARGUMENT
    storage._fs.rm_file(at("manifest.json"))  # half pushed: no version yet
    assert mirror(url, root) == [] and push(url, tmp_path / "n") == "1"
    assert mirror(url, root) == ["m/1"]


def test_a_mirror_takes_what_is_signed(url, tmp_path):
    public = new_key(tmp_path / "key")
    (tmp_path / "trusted").write_text(f'keys = ["{public}"]')
    trust, source, root = load_trust(tmp_path / "trusted"), net(tmp_path / "n", 1), tmp_path / "root"
    root.mkdir()
    push(url, source, signer=Signer(tmp_path / "key"))
    assert mirror(url, root, trust=trust) == ["m/1"]
    load_version(Directory(root).find("m").versions["1"], Settings(), trust=trust)
    assert (
        kind_of(mirror, url, tmp_path / "root2", trust=Trust(trust.keys, revoked=frozenset(["m/1"]))) is Kind.FORBIDDEN
    )
    push(url, source)
    assert kind_of(mirror, url, root, trust=trust) is Kind.FORBIDDEN
    assert list(Directory(root).find("m").versions) == ["1"]


def test_the_command(url, tmp_path, capsys):
    source, root = net(tmp_path / "n", 1), tmp_path / "new" / "root"

    def call(*arguments, code=OK):
        assert run(["models", *map(str, arguments)]) == code
        done = capsys.readouterr()
        return done.out if code == OK else done.err

    assert "m version 1" in call("push", url, "m", source)
    assert call("mirror", url, root) == "m/1\n" and call("mirror", url, root) == "nothing new\n"
    assert "m" in call("list", url) and call("promote", root, "m", "1") == "m: 1: stable\n"
    assert "what is live is said to a server" in call("promote", url, "m", "1", code=INPUT)
    call("remove", url, "m", "1")
    assert "no model is called 'm'" in call("list", url, "m", code=INPUT)
    assert "Protocol not known" in call("list", "nonsense://x", code=INPUT)


def test_what_is_no_version_is_left_alone(tmp_path):
    put(tmp_path / "store", "m", 1, scale(1))  # without a manifest
    releases.push(tmp_path / "store", "n", net(tmp_path / "n", 1))
    assert Storage(f"file://{tmp_path}/store").versions() == {"n": ["1"]}
