# SPDX-License-Identifier: Apache-2.0
"""Uploads (case 30), signatures (case 29), and what people do with a repository."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import save_model
from small_models import ones, put, scale

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import manifest as manifests
from fastinfer.serve.repository import releases, signing
from fastinfer.serve.repository.directory import Directory
from fastinfer.serve.repository.loading import load_version
from fastinfer.serve.repository.log import Live, Log
from fastinfer.serve.repository.manifest import File, Manifest
from fastinfer.serve.repository.push import Uploads
from fastinfer.serve.repository.settings import Settings


def manifest_of(files, model="m", version="1"):
    listed = {n: File(len(d), hashlib.sha256(d).hexdigest()) for n, d in files.items()}
    return Manifest(model, version, listed)


def kind_of(call, *args, **kwargs):
    with pytest.raises(ServeError) as info:
        call(*args, **kwargs)
    return info.value.kind


DATA = bytes(range(256)) * 40


def test_gap_overlap_and_wrong_checksum(tmp_path):
    u = Uploads(tmp_path)
    up = u.begin(manifest_of({"a.onnx": DATA, "d/empty": b""})).upload
    assert u.write(up, "a.onnx", 0, DATA[:1000]) == 1000
    with pytest.raises(ServeError, match="leaves a gap; the next one begins at 1000"):
        u.write(up, "a.onnx", 2000, DATA[2000:3000])
    with pytest.raises(ServeError, match="overlaps what is there; the next one begins at 1000"):
        u.write(up, "a.onnx", 500, DATA[500:1500])
    assert kind_of(u.write, up, "a.onnx", -1, b"x") is Kind.CONFLICT
    assert kind_of(u.write, up, "b.onnx", 0, b"x") is Kind.INVALID_ARGUMENT
    assert kind_of(u.write, up, "../a", 0, b"x") is Kind.INVALID_ARGUMENT
    assert kind_of(u.write, up, "a.onnx", 1000, DATA) is Kind.INVALID_ARGUMENT  # more than was declared
    assert kind_of(u.write, up, "a.onnx", 1000, DATA[1000:], sha256="0" * 64) is Kind.INVALID_ARGUMENT
    with pytest.raises(ServeError, match="has 1000 of 10240 bytes"):
        u.commit(up)
    u.write(up, "a.onnx", 1000, DATA[1000:], sha256=hashlib.sha256(DATA[1000:]).hexdigest())
    assert u.commit(up).version == "1"
    assert (tmp_path / "m" / "1" / "a.onnx").read_bytes() == DATA and (tmp_path / "m" / "1" / "d" / "empty").exists()
    assert kind_of(u.begin, manifest_of({"a.onnx": DATA})) is Kind.ALREADY_EXISTS
    assert kind_of(u.write, up, "a.onnx", 0, b"") is Kind.NOT_FOUND
    assert [(e.action, e.version) for e in Log(tmp_path).entries("m")] == [("push", "1")]


def test_a_wrong_file_is_sent_again(tmp_path):
    u = Uploads(tmp_path)
    up = u.begin(manifest_of({"a.onnx": DATA})).upload
    u.write(up, "a.onnx", 0, DATA[::-1])
    with pytest.raises(ServeError, match="send it again"):
        u.commit(up)
    assert not (tmp_path / "m").exists() and u.progress(up).received == {"a.onnx": 0}
    u.write(up, "a.onnx", 0, DATA)
    u.commit(up)


def test_resume_after_a_crash_of_either_side(tmp_path):
    m = manifest_of({"a.onnx": DATA})
    up = Uploads(tmp_path).begin(m).upload
    Uploads(tmp_path).write(up, "a.onnx", 0, DATA[:3000])
    again = Uploads(tmp_path).begin(m)  # other processes, on both sides
    assert again.upload == up and again.received == {"a.onnx": 3000}
    Uploads(tmp_path).write(up, "a.onnx", 3000, DATA[3000:])
    Uploads(tmp_path).commit(up)
    # One whose manifest was never written holds nothing up.
    torn = tmp_path / ".fastinfer" / "uploads" / ("0" * 32)
    torn.mkdir(parents=True)
    assert kind_of(Uploads(tmp_path).progress, "0" * 32) is Kind.NOT_FOUND
    Uploads(tmp_path).begin(manifest_of({"a.onnx": DATA}, version="2"))


def test_concurrent_writers(tmp_path):
    u = Uploads(tmp_path)
    up = u.begin(manifest_of({"a.onnx": DATA})).upload
    u.write(up, "a.onnx", 0, DATA[:10])
    folder = tmp_path / ".fastinfer" / "uploads" / up
    with open(folder / "files" / "a.onnx", "rb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert kind_of(u.write, up, "a.onnx", 10, DATA[10:]) is Kind.CONFLICT
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # somebody else writes another file
    assert kind_of(u.commit, up) is Kind.CONFLICT and kind_of(u.abandon, up) is Kind.CONFLICT
    u.write(up, "a.onnx", 10, DATA[10:])
    os.close(descriptor)
    u.commit(up)


def test_quota_and_abandoned_uploads(tmp_path):
    u = Uploads(tmp_path, quota=15_000, most=2, abandoned=100.0)
    first = u.begin(manifest_of({"a.onnx": DATA})).upload
    assert kind_of(u.begin, manifest_of({"a.onnx": DATA}, version="2")) is Kind.TOO_LARGE
    u.begin(manifest_of({"a.onnx": b"x"}, version="3"))
    assert kind_of(u.begin, manifest_of({"a.onnx": b"x"}, version="4")) is Kind.RATE
    assert u.clean() == []
    old = time.time() - 1000
    for p in [*(tmp_path / ".fastinfer" / "uploads" / first).rglob("*"), tmp_path / ".fastinfer" / "uploads" / first]:
        os.utime(p, (old, old))
    u.begin(manifest_of({"a.onnx": DATA}, version="5"))
    assert kind_of(u.progress, first) is Kind.NOT_FOUND
    huge = Manifest("m", "9", {"a": File(1 << 49, "0" * 64)})
    assert kind_of(Uploads(tmp_path, quota=1 << 50).begin, huge) is Kind.TOO_LARGE


def test_a_chunk_that_comes_while_abandoned_uploads_are_looked_for_is_taken(tmp_path, monkeypatch):
    u, written = Uploads(tmp_path), []
    up = u.begin(manifest_of({"a.onnx": DATA})).upload
    now = time.time

    def meanwhile():
        monkeypatch.setattr(time, "time", now)
        written.append(u.write(up, "a.onnx", 0, DATA[:1000]))
        return now()

    monkeypatch.setattr(time, "time", meanwhile)  # which is asked for once an upload is looked at
    assert u.clean() == [] and written == [1000]


@given(st.lists(st.tuples(st.integers(-5, 40), st.integers(0, 20)), max_size=25))
@settings(max_examples=40, deadline=None)
def test_any_chunks_give_the_file_or_nothing(tmp_path_factory, chunks):
    """Whatever a client sends in whatever order: what is there is a prefix of the file, and the version is the file."""
    data, root = bytes(range(40)), tmp_path_factory.mktemp("u")
    u = Uploads(root)
    up = u.begin(manifest_of({"a.onnx": data})).upload
    for offset, size in chunks:
        try:
            u.write(up, "a.onnx", offset, data[max(0, offset) :][:size])
        except ServeError as e:
            assert e.kind in (Kind.CONFLICT, Kind.INVALID_ARGUMENT)
        there = u.progress(up).received["a.onnx"]
        file = root / ".fastinfer" / "uploads" / up / "files" / "a.onnx"
        assert (file.read_bytes() if there else b"") == data[:there]
    u.write(up, "a.onnx", there if chunks else 0, data[there if chunks else 0 :])
    u.commit(up)
    assert (root / "m" / "1" / "a.onnx").read_bytes() == data


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}}, {"files": {"../a": {"size": 1, "sha256": "0" * 64}}}, {"files": {"a": {"size": -1, "sha256": "0" * 64}}},
        {"files": {"a": {"size": 1, "sha256": "0"}}}, {"files": {"a": {"size": True, "sha256": "0" * 64}}},
        {"files": {"a": {"size": 1, "sha256": "0" * 64}, "A": {"size": 1, "sha256": "0" * 64}}},
        {"files": {"a": {"size": 1, "sha256": "0" * 64}, "a/b": {"size": 1, "sha256": "0" * 64}}},
        {"files": {"manifest.json": {"size": 1, "sha256": "0" * 64}}}, {"files": {f"f{i}": {"size": 1, "sha256": "0" * 64} for i in range(300)}},
        {"model": "../m"}, {"version": "01"}, {"version": 1}, {"format": 2}, {"extra": 1},
    ],
)  # fmt: skip
def test_manifests_that_are_refused(change):
    good = json.loads(manifest_of({"a": b"x"}).encode())
    assert manifests.of_json(good) == manifest_of({"a": b"x"})
    assert kind_of(manifests.of_json, good | change) is Kind.INVALID_ARGUMENT


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8
    )
)
def test_any_manifest_is_one_or_a_serve_error(value):
    try:
        manifests.decode(value if isinstance(value, bytes) else json.dumps(value).encode())
    except ServeError:
        pass


# ---------------------------------------------------------------------------------------------------------- signatures


@pytest.fixture
def signed(tmp_path):
    """(root, trust, signer): version 1 of m, signed, with external data."""
    source = tmp_path / "source"
    source.mkdir()
    save_model(scale(3), source / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    public = signing.new_key(tmp_path / "key.pem")
    signer = signing.Signer(tmp_path / "key.pem")
    root = tmp_path / "root"
    root.mkdir()
    releases.push(root, "m", source / "net.onnx", signer=signer)
    (tmp_path / "trust.toml").write_text(f'keys = ["{public}"]\n')
    return root, signing.load_trust(tmp_path / "trust.toml"), signer


def load(root, trust, version="1", model="m"):
    return load_version(Directory(root).find(model).versions[version], Settings(), trust=trust).model.run({"x": ones()})


def test_signed_versions_load_and_changed_ones_do_not(signed):
    root, trust, _ = signed
    assert load(root, trust)["y"][0, 0] == 3
    weights = root / "m" / "1" / "w.bin"
    data = weights.read_bytes()
    weights.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(ServeError, match="not what the manifest says"):
        load(root, trust)
    with pytest.raises(ServeError, match="not what the manifest says"):
        load(root, None)  # a damaged file is found without signatures too
    weights.write_bytes(data)
    (root / "m" / "1" / "extra.bin").write_bytes(b"x")
    with pytest.raises(ServeError, match="not in the manifest"):
        load(root, trust)
    (root / "m" / "1" / "extra.bin").unlink()
    weights.unlink()
    with pytest.raises(ServeError, match="but not there"):
        load(root, trust)


def test_unsigned_and_wrongly_signed_versions_are_refused(signed, tmp_path):
    root, trust, signer = signed
    put(root, "m", 2, scale(2))
    assert kind_of(load, root, trust, "2") is Kind.FORBIDDEN
    lenient = signing.Trust(trust.keys, required=False)
    assert load(root, lenient, "2")["y"][0, 0] == 2
    signing.new_key(tmp_path / "other.pem")
    releases.push(root, "m", root / "m" / "2", version="3", signer=signing.Signer(tmp_path / "other.pem"))
    for t in (trust, lenient):  # a wrong signature is worse than none
        with pytest.raises(ServeError, match="not trusted here"):
            load(root, t, "3")
    # A signature moved to another version, or to another model, is none of its.
    os.rename(root / "m" / "1", root / "m" / "4")
    with pytest.raises(ServeError, match="manifest is of version 1"):
        load(root, trust, "4")
    sig = root / "m" / "4" / "manifest.sig"
    for text in (b"", b"{}", b"[]", b"{" * 5000, sig.read_bytes().replace(b'"signature": "', b'"signature": "AAAA')):
        sig.write_bytes(text)
        assert kind_of(load, root, trust, "4") is Kind.FORBIDDEN


def test_what_was_revoked_is_refused(signed):
    root, trust, signer = signed
    digest = hashlib.sha256((root / "m" / "1" / "manifest.json").read_bytes()).hexdigest()
    key = signing.key_id(signer.public)
    for revoked in (
        {"revoked": frozenset([digest])},
        {"revoked": frozenset(["m/1"])},
        {"revoked_keys": frozenset([key])},
    ):
        with pytest.raises(ServeError, match="revoked"):
            load(root, signing.Trust(trust.keys, **revoked))


def test_an_upload_needs_its_signature(signed, tmp_path):
    root, trust, signer = signed
    m = manifest_of({"model.onnx": DATA}, version="7")
    u = Uploads(root, trust=trust)
    up = u.begin(m).upload
    u.write(up, "model.onnx", 0, DATA)
    assert kind_of(u.commit, up) is Kind.FORBIDDEN
    assert kind_of(u.commit, up, signer.sign(manifest_of({"x": b""}).encode())) is Kind.FORBIDDEN
    u.commit(up, signer.sign(m.encode()))


def test_private_keys_are_private(tmp_path):
    signing.new_key(tmp_path / "k")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert kind_of(signing.new_key, tmp_path / "k") is Kind.INVALID_ARGUMENT
    (tmp_path / "k").chmod(0o644)
    assert kind_of(signing.Signer, tmp_path / "k") is Kind.INVALID_ARGUMENT
    for text in ("keys = ['x']", "key = []", "required = 1", "keys = [", "keys = 'x'"):
        (tmp_path / "t").write_text(text)
        assert kind_of(signing.load_trust, tmp_path / "t") is Kind.INVALID_ARGUMENT


# ------------------------------------------------------------------------------------------------------------- releases


def test_push_pull_remove(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "net.onnx").write_bytes(scale(2).SerializeToString())
    assert [releases.push(root, "m", tmp_path / "net.onnx").version for _ in range(3)] == ["1", "2", "3"]
    Log(root).change("m", "promote", lambda live: live.promote("1"))
    assert kind_of(releases.remove, root, "m", "1") is Kind.CONFLICT
    releases.remove(root, "m", "3")
    assert releases.next_version(root, "m") == "4"  # a number is never used again
    assert [(v.version, v.roles) for v in releases.listing(root)] == [("1", ["stable"]), ("2", [])]
    releases.pull(root, "m", "", tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()
    assert kind_of(releases.pull, root, "m", "stable", tmp_path / "out") is Kind.ALREADY_EXISTS
    (root / "m" / "2" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ServeError, match="not what the manifest says"):
        releases.pull(root, "m", "2", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_a_push_that_was_killed_goes_on(tmp_path):
    """A process is killed between two chunks; the next push of the same files finds what is there."""
    root, source = tmp_path / "root", tmp_path / "source"
    root.mkdir()
    source.mkdir()
    (source / "model.onnx").write_bytes(scale(2).SerializeToString())
    (source / "data.bin").write_bytes(os.urandom(300_000))
    code = (
        "import os, signal, sys; from pathlib import Path; from fastinfer.serve.repository import releases\n"
        "releases.CHUNK = 100_000\n"
        "releases.push(Path(sys.argv[1]), 'm', Path(sys.argv[2]), report=lambda s: s > 0.5 and os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root), str(source)], timeout=60)
    assert done.returncode == -9 and not (root / "m").exists()
    (upload,) = (root / ".fastinfer" / "uploads").iterdir()
    assert (upload / "files" / "data.bin").stat().st_size == 200_000
    shares = []
    releases.push(root, "m", source, report=shares.append)
    assert len(shares) == 2 and load(root, None)["y"][0, 0] == 2


# ------------------------------------------------------------------------------------------------------------------ log


def test_rollback_goes_to_what_was_live_before(tmp_path):
    log, exist = Log(tmp_path), {"1", "2", "3"}
    back = lambda d="": log.change("m", "rollback", lambda live: log.previous("m", live, exist, d)).stable  # noqa: E731
    for v in ("1", "2"):
        log.change("m", "promote", lambda live, v=v: live.promote(v), version=v)
    log.change("m", "canary", lambda live: live.canary("3", 10))
    assert log.live("m") == Live({"stable": "2", "canary": "3"}, {"3": 10.0})
    assert back() == "2" and log.live("m") == Live({"stable": "2"})  # the canary ends first
    log.change("m", "promote", lambda live: live.promote("3"))
    assert [back(), back()] == ["2", "1"]
    with pytest.raises(ServeError, match="no version from before 1"):
        back()
    log.change("m", "promote", lambda live: live.promote("3"))
    assert back() == "1"  # not to 2, which was rolled back from
    assert log.live("other") == Live()
    assert log.change("o", "rollback", lambda live: log.previous("o", live, exist, "3")).stable == "2"
    log.verify()


def test_the_log_survives_torn_lines_and_shows_changed_ones(tmp_path):
    log = Log(tmp_path)
    log.note("m", "push", version="1", by="a\x1b[31m\n")
    log.change("m", "promote", lambda live: live.promote("1"))
    with open(log.path, "ab") as f:
        f.write(b'{"model": "m", "live": {"aliases": {"sta')
    assert log.live("m").stable == "1" and Log(tmp_path).live("m").stable == "1"
    log.change("m", "promote", lambda live: live.promote("2"))
    assert log.live("m").stable == "2" == Log(tmp_path).live("m").stable
    assert len(log.path.read_bytes().splitlines()) == 3
    log.verify()
    log.path.write_bytes(log.path.read_bytes().replace(b'"stable":"1"', b'"stable":"3"', 1))
    with pytest.raises(ServeError, match="line 3"):
        log.verify()
    log.path.write_bytes(b'{"live": {"aliases": {"stable": "../.."}}, "model": "m"}\nnonsense\n[]\n')
    assert Log(tmp_path).live("m") == Live()


def test_two_writers_of_the_log_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fastinfer.serve.repository.log import Log\n"
        "for _ in range(100): Log(Path(sys.argv[1])).note('m', 'push', by=sys.argv[2])"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(2)]
    assert [j.wait(60) for j in jobs] == [0, 0]
    Log(tmp_path).verify()
    assert len(Log(tmp_path).entries()) == 200


def test_what_is_live_is_checked(tmp_path):
    log = Log(tmp_path)
    for new in (
        lambda live: live.promote("../1"),
        lambda live: live.promote("1").canary("1", 5),
        lambda live: live.canary("2", 101),
        lambda live: live.canary("2", float("nan")),
        lambda live: Live(split={"1": 60, "2": 60}),
        lambda live: live.alias("a b", "1"),
    ):
        with pytest.raises(ServeError):
            log.change("m", "promote", new)
    assert log.entries() == []
