# SPDX-License-Identifier: Apache-2.0
"""A repository after crashes, and under several writers and readers."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from onnx import save_model
from small_models import put, scale
from test_push import DATA, kind_of, manifest_of

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import releases
from fastinfer.serve.repository.directory import Directory
from fastinfer.serve.repository.log import Log
from fastinfer.serve.repository.push import Uploads


def test_an_upload_whose_beginning_was_cut_short_is_begun_again(tmp_path):
    """Killed between making the folder and writing the manifest: the same push goes on, and not after a day only."""
    m = manifest_of({"a.onnx": DATA})
    (tmp_path / ".fastinfer" / "uploads" / m.digest[:32]).mkdir(parents=True)
    u = Uploads(tmp_path)
    up = u.begin(m).upload
    u.write(up, "a.onnx", 0, DATA)
    u.commit(up)
    assert (tmp_path / "m" / "1" / "a.onnx").read_bytes() == DATA


def test_many_begin_at_once_and_the_quota_holds(tmp_path):
    u = Uploads(tmp_path, quota=3 * len(DATA), most=100)
    barrier = threading.Barrier(8)

    def begin(n):
        barrier.wait()
        try:
            return u.begin(manifest_of({"a.onnx": DATA}, version=str(n % 4 + 1))).upload
        except ServeError as e:
            assert e.kind is Kind.TOO_LARGE
            return None

    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(begin, range(8)))
    assert len(set(begun) - {None}) == 3 == len(list((tmp_path / ".fastinfer" / "uploads").iterdir()))


def test_a_push_does_not_hide_a_model_that_is_a_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(scale(2).SerializeToString())
    with pytest.raises(ServeError, match="move it to m/1/model.onnx"):
        releases.push(tmp_path, "m", tmp_path / "m.onnx")
    assert list(Directory(tmp_path).find("m").versions) == ["1"]


def test_external_data_does_not_take_the_models_place(tmp_path):
    save_model(scale(3), tmp_path / "net.onnx", save_as_external_data=True, location="model.onnx", size_threshold=0)
    with pytest.raises(ServeError, match="keeps weights in 'model.onnx'"):
        releases.push(tmp_path, "m", tmp_path / "net.onnx")


def test_what_is_published_is_synced_up_to_the_root(tmp_path, monkeypatch):
    """A rename survives a loss of power once the folder that holds the name was synced: the model's, and the one above."""
    order = []
    real, rename = os.fsync, os.rename
    paths = lambda fd: os.readlink(f"/proc/self/fd/{fd}")  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(paths(fd)), real(fd))[1])
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append("rename"), rename(a, b))[1])
    u = Uploads(tmp_path)
    up = u.begin(manifest_of({"d/a.onnx": DATA})).upload
    u.write(up, "d/a.onnx", 0, DATA)
    u.commit(up)
    before, after = order[: order.index("rename")], order[order.index("rename") :]
    files = str(tmp_path / ".fastinfer" / "uploads" / up / "files")
    assert {f"{files}/d/a.onnx", f"{files}/d", files} <= set(before)
    assert {str(tmp_path / "m"), str(tmp_path)} <= set(after)
    assert {str(tmp_path / ".fastinfer" / "log.jsonl"), str(tmp_path / ".fastinfer")} <= set(after)


def test_settings_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    put(tmp_path, "m", 1, scale(1), settings="owner = 'a'")
    assert kind_of(releases.set_settings, tmp_path, "m", b"ownr = 'b'") is Kind.INVALID_ARGUMENT

    def full(fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, "fsync", full)
        assert kind_of(releases.set_settings, tmp_path, "m", b"owner = 'b'") is Kind.UNAVAILABLE
    assert sorted(os.listdir(tmp_path / "m")) == ["1", "model.toml"]
    assert Directory(tmp_path).find("m").settings.owner == "a"
    releases.set_settings(tmp_path, "m", b"owner = 'b'")
    assert Directory(tmp_path).find("m").settings.owner == "b"


def test_a_log_that_many_threads_read_while_it_grows(tmp_path):
    """Each line counts once: two readers at a time used to move the position twice, and lines were skipped."""
    log, writer = Log(tmp_path), Log(tmp_path)
    done = threading.Event()

    def read():
        while not done.is_set():
            versions = [e.version for e in log.entries()]
            assert versions == [str(n + 1) for n in range(len(versions))]

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for n in range(150):
            writer.note("m", "push", version=str(n + 1))
        done.set()
        for reader in readers:
            reader.result()
    assert len(log.entries()) == 150


def test_a_torn_last_line_is_no_change_of_the_past(tmp_path):
    log = Log(tmp_path)
    log.note("m", "push", version="1")
    with open(log.path, "ab") as f:
        f.write(b'{"model": "m", "prev')
    log.verify()
    log.note("m", "push", version="2")
    log.verify()
    assert [e.version for e in log.entries()] == ["1", "2"]


def test_wrong_settings_can_be_put_right(tmp_path):
    """Whoever wrote a wrong model.toml by hand can still list, pull, push and replace it."""
    put(tmp_path, "m", 1, scale(1), settings="ownr = 'a'")
    assert kind_of(Directory(tmp_path).find, "m") is Kind.INVALID_ARGUMENT
    assert [v.version for v in releases.listing(tmp_path, "m")] == ["1"]
    releases.pull(tmp_path, "m", "1", tmp_path / "out")
    assert releases.push(tmp_path, "m", tmp_path / "out").version == "2"
    releases.set_settings(tmp_path, "m", b"owner = 'a'")
    assert list(Directory(tmp_path).find("m").versions) == ["1", "2"]


def test_who_reads_while_versions_come_and_go_sees_whole_ones(tmp_path):
    (tmp_path / "source").mkdir()
    for n in range(20):
        (tmp_path / "source" / f"f{n}.bin").write_bytes(b"x")
    (tmp_path / "source" / "model.onnx").write_bytes(scale(1).SerializeToString())
    root = tmp_path / "root"
    root.mkdir()
    releases.push(root, "m", tmp_path / "source")
    done = threading.Event()

    def read():
        while not done.is_set():
            for version in Directory(root).find("m").versions.values():
                assert len(version.files) == 22  # and the manifest
            releases.listing(root, "m")

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for n in range(2, 22):
                releases.push(root, "m", tmp_path / "source")
                releases.remove(root, "m", str(n))
        finally:
            done.set()
        reader.result()


@pytest.mark.parametrize("failing", ["fsync", "write"])
def test_a_change_that_cannot_be_noted_did_not_happen(tmp_path, monkeypatch, failing):
    log = Log(tmp_path)
    log.change("m", "promote", lambda live: live.promote("1"))
    real = getattr(os, failing)

    def full(fd, *data):
        if os.readlink(f"/proc/self/fd/{fd}") != str(log.path):
            return real(fd, *data)
        if failing == "write" and len(data[0]) > 20:
            return real(fd, data[0][:20])  # a part of it fits
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, failing, full)
        assert kind_of(log.change, "m", "promote", lambda live: live.promote("2")) is Kind.UNAVAILABLE
    assert log.live("m").stable == "1" == Log(tmp_path).live("m").stable
    assert len(log.path.read_bytes().splitlines()) == 1
    log.change("m", "promote", lambda live: live.promote("3"))
    log.verify()
    assert Log(tmp_path).live("m").stable == "3"


def test_a_log_that_was_put_back(tmp_path):
    """Of a backup, or a line that its writer took back: what is read on begins where the file still is what was read."""
    log = Log(tmp_path)
    for v in "123":
        log.change("m", "promote", lambda live, v=v: live.promote(v))
    before = log.path.read_bytes()
    lines = before.splitlines(keepends=True)
    assert log.live("m").stable == "3"
    log.path.write_bytes(b"".join(lines[:2]))
    Log(tmp_path).change("m", "promote", lambda live: live.promote("12345"))
    assert len(log.path.read_bytes()) > len(before)
    assert log.live("m").stable == "12345" and len(log.entries()) == 3
