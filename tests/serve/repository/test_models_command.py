# SPDX-License-Identifier: Apache-2.0
"""``fastinfer models`` on a directory."""

from __future__ import annotations

import base64
import json

import pytest
from small_models import scale

from fastinfer.cli.app import INPUT, OK, USAGE, run
from fastinfer.serve.access import Caller
from fastinfer.serve.access.keys import KeyFile


@pytest.fixture
def call(tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "net.onnx").write_bytes(scale(2).SerializeToString())

    def command(name, *arguments, code=OK):
        assert run(["models", name, *([] if name == "keygen" else [str(root)]), *map(str, arguments)]) == code
        done = capsys.readouterr()
        return done.out if code == OK else done.err + done.out

    command.root, command.net, command.folder = root, tmp_path / "net.onnx", tmp_path
    return command


def test_a_life_of_versions(call):
    assert "m version 1: " in call("push", "m", call.net)
    made = json.loads(call("push", "m", call.net, "--promote", "--json", "--by", "me"))
    assert made["version"] == "2"
    call("push", "m", call.net, "--canary", "10")
    listed = json.loads(call("list", "--json"))
    assert [(v["version"], v["roles"]) for v in listed] == [("1", []), ("2", ["stable"]), ("3", ["canary", "10 %"])]
    assert "canary, 10 %" in call("list", "m")
    assert call("rollback", "m") == "m: 2: stable\n"
    assert call("promote", "m", "3") == "m: 3: stable\n"
    assert call("promote", "m", "1", "--alias", "old") == "m: 1: old; 3: stable\n"
    assert call("promote", "m", "old", "--shadow", "5") == "m: 1: old, 5 % copied; 3: stable\n"
    assert call("rollback", "m") == "m: 1: old; 3: stable\n"
    assert call("rollback", "m") == "m: 1: old; 2: stable\n"
    assert "is live (stable)" in call("remove", "m", "2", code=INPUT)
    assert "version 3 is removed" in call("remove", "m", "3")
    call("pull", "m", "stable", "-o", call.folder / "out")
    assert (call.folder / "out" / "model.onnx").read_bytes() == call.net.read_bytes()
    entries = json.loads(call("log", "m", "--check", "--json"))
    assert [e["action"] for e in entries] == [
        "push", "push", "promote", "push", "canary", "rollback", "promote", "alias", "shadow", "rollback", "rollback", "remove",
    ]  # fmt: skip
    assert entries[1]["by"] == "me" and "me" in call("log")


def test_signed(call):
    public = call("keygen", call.folder / "key").strip()
    assert len(base64.b64decode(public)) == 32
    call("push", "m", call.net, "--key", call.folder / "key")
    assert json.loads(call("list", "--json"))[0]["signed"]


def test_wrong_usage(call):
    call("push", "m", call.net)
    (call.folder / "model.toml").write_text("desciption = 'x'")
    assert "did you mean 'description'" in call(
        "push", "m", call.net, "--settings", call.folder / "model.toml", code=INPUT
    )
    assert "no model name" in call("push", "../m", call.net, code=INPUT)
    assert "no version '9'" in call("promote", "m", "9", code=INPUT)
    assert "no model is called 'x'" in call("rollback", "x", code=INPUT)
    assert "no version from before" in call("rollback", "m", code=INPUT)
    assert "from 0 to 100" in call("promote", "m", "1", "--canary", "101", code=INPUT)
    assert "exclude" in call("promote", "m", "1", "--canary", "1", "--shadow", "1", code=USAGE)
    assert "no folder" in call("push", "m", call.folder / "model.toml", code=INPUT)
    assert not (call.root.parent / "m").exists()


def test_api_keys(tmp_path, capsys):
    file = tmp_path / "keys.toml"

    def made(*arguments, code=OK):
        assert run(["apikey", str(file), *arguments]) == code
        done = capsys.readouterr()
        return done.out.strip() if code == OK else done.err

    app = made("app", "--scope", "infer", "--model", "ocr-*", "--rate", "5", "--expires", "2100-01-01")
    ops = made('o"ps', "--scope", "admin", "--scope", "read")
    assert file.stat().st_mode & 0o777 == 0o600 and app not in file.read_text()
    keys = KeyFile(file)
    assert keys.find(app, 0) == Caller.of("app", ["infer"], ["ocr-*"], 5)
    assert keys.find(app, 5e9) is None  # expired
    assert keys.find(ops, 0).name == 'o"ps' and keys.find("fi_x", 0) is None
    before = file.read_bytes()
    assert "no scope is called 'root'" in made("x", "--scope", "root", code=INPUT)
    assert made("x", code=USAGE)  # no scope at all
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
