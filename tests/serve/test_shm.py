# SPDX-License-Identifier: Apache-2.0
"""System shared memory: what may be registered, and what happens when the client plays with its object (case 27)."""

import contextlib
import gc
import os
import resource
import uuid
from pathlib import Path

import pytest

from fastinfer.serve import shm
from fastinfer.serve.errors import Kind, ServeError

SHM = Path(shm.DIRECTORY)


@pytest.fixture
def make():
    """make(size, content=b"") -> key of a new object."""
    paths = []

    def make(size, content=b"", prefix="fi_test_"):
        path = SHM / f"{prefix}{uuid.uuid4().hex}"
        path.write_bytes(content)
        os.truncate(path, size)
        paths.append(path)
        return f"/{path.name}"

    yield make
    for path in paths:
        path.unlink(missing_ok=True)


@pytest.fixture
def regions():
    return shm.Regions()


def path_of(key):
    return SHM / key[1:]


@contextlib.contextmanager
def refused(kind=Kind.INVALID_ARGUMENT, match=None):
    with pytest.raises(ServeError, match=match) as e:
        yield e
    assert e.value.kind is kind


def fds():
    """How many descriptors of this process are of shared memory objects."""
    gc.collect()  # what an earlier test's exceptions still hold
    opened = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            opened.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum("fi_test_" in path for path in opened)


def test_read_and_write_go_to_the_region_alone(make, regions):
    key = make(16, b"0123456789abcdef")
    regions.register("r", key, 4, 8)
    assert regions.read("r", 0, 8) == b"456789ab"
    assert regions.read("r", 6, 2) == b"ab" and regions.read("r", 8, 0) == b""
    regions.write("r", 2, b"XYZ")
    regions.write("r", 8, b"")
    assert path_of(key).read_bytes() == b"012345XYZ9abcdef"
    assert regions.status() == regions.status("r") == [{"name": "r", "key": key, "offset": 4, "byte_size": 8}]


def test_a_key_with_or_without_its_slash_is_the_same_object(make, regions):
    key = make(4, b"data")
    regions.register("a", key, 0, 4)
    regions.register("b", key[1:], 0, 4)
    assert regions.read("a", 0, 4) == regions.read("b", 0, 4)


@pytest.mark.parametrize(
    "key", ["", "/", ".", "/..", "../etc/passwd", "/../etc/passwd", "//etc/passwd", "/etc/passwd", "a/b", "a\0b", "x" * 300,
            "\ud800", "/fi_test_is_not_there", "/fastinfer-weights-1", "fastinfer", "/sem.other", None, 7, b"/bytes"]
)  # fmt: skip
def test_keys_that_name_nothing_of_the_clients(key, regions):
    with refused(match="^shared memory region 'r': there is no object under the given key that this server may use$"):
        regions.register("r", key, 0, 1)
    assert regions.status() == []


def test_our_own_objects_are_refused_though_they_exist(make, regions):
    for prefix in shm.INTERNAL:
        with refused(match="no object under the given key"):
            regions.register("r", make(8, prefix=prefix), 0, 8)


def test_only_keys_of_the_prefix(make):
    regions = shm.Regions(prefix="fi_test_ours")
    regions.register("ours", make(4, prefix="fi_test_ours"), 0, 4)
    with refused(match="no object under the given key"):
        regions.register("theirs", make(4), 0, 4)


def test_links_fifos_and_directories_are_refused(make, regions, tmp_path):
    key = make(8)
    links = [SHM / f"fi_test_{uuid.uuid4().hex}" for _ in range(4)]
    symlink, hardlink, fifo, directory = links
    (tmp_path / "secret").write_bytes(b"password")
    symlink.symlink_to(tmp_path / "secret")
    os.link(path_of(key), hardlink)
    os.mkfifo(fifo)
    directory.mkdir()
    before = fds()
    try:
        for path in links:
            with refused(match="no object under the given key"):
                regions.register("r", path.name, 0, 1)
        with refused(match="no object under the given key"):  # the first name of what has two
            regions.register("r", key, 0, 1)
    finally:
        for path in (symlink, hardlink, fifo):
            path.unlink()
        directory.rmdir()
    assert fds() == before


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 17), (16, 1), (17, 0), (0, 0), (-1, 4), (0, -4), ((1 << 64) - 4, 8), (1 << 63, 1), (4, (1 << 63) - 4), (0, 1 << 64),
     (0.0, 4), (True, 4), ("0", 4), (0, None), pytest.param(1 << 20_000, 1, id="huge")],
)  # fmt: skip
def test_registrations_past_the_end(offset, size, make, regions):
    before = fds()
    with refused():
        regions.register("r", make(16), offset, size)
    assert regions.status() == [] and fds() == before


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 9), (8, 1), (9, 0), (-1, 1), (0, -1), ((1 << 64) - 4, 8), (1 << 62, 1 << 62), (0, 1.0), (None, 1)],
)
def test_tensors_past_the_end_of_the_region(offset, size, make, regions):
    key = make(32)
    regions.register("r", key, 8, 8)
    with refused(match="shared memory region 'r' has 8 bytes"):
        regions.read("r", offset, size)
    with refused(match="shared memory region 'r' has 8 bytes"):
        regions.write("r", 6, b"too long")
    assert path_of(key).read_bytes() == bytes(32)


def test_an_object_that_shrinks_after_it_was_registered(make, regions):
    key = make(1 << 20, b"x")
    regions.register("r", key, 0, 1 << 20)
    os.truncate(path_of(key), 4096)
    assert regions.read("r", 0, 1) == b"x"  # what is left still is there
    for attempt in (lambda: regions.read("r", 0, 1 << 20), lambda: regions.read("r", 8192, 4),
                    lambda: regions.write("r", 4090, b"seven b")):  # fmt: skip
        with refused(match="has become shorter than what was registered"):
            attempt()
    assert path_of(key).stat().st_size == 4096  # and was not made to grow


def test_a_sparse_object_costs_no_memory(make, regions):
    regions.register("r", make(1 << 40), 0, 1 << 40)
    with refused(Kind.TOO_LARGE):
        regions.read("r", 0, 1 << 40)
    assert regions.read("r", (1 << 40) - 4, 4) == bytes(4)


def test_names(make, regions):
    key, other = make(4, b"mine"), make(4, b"hers")
    regions.register("r", key, 0, 4)
    for again in (key, other):
        with refused(Kind.ALREADY_EXISTS) as e:
            regions.register("r", again, 0, 4)
    assert key not in str(e.value) and other not in str(e.value)
    assert regions.read("r", 0, 4) == b"mine"
    with refused(Kind.NOT_FOUND, "no shared memory region is registered as 'q'"):
        regions.read("q", 0, 4)
    with refused(Kind.NOT_FOUND):
        regions.status("q")
    for name in ("", "n" * 257, None):
        with refused(match="needs a name"):
            regions.register(name, key, 0, 4)


def test_unregistered_while_in_use(make, regions):
    key, other = make(4, b"mine"), make(4, b"hers")
    before = fds()
    regions.register("r", key, 0, 4)
    held = regions.get("r")
    regions.unregister("r")
    regions.unregister("r")  # clients do so to be sure
    path_of(key).unlink()
    regions.register("r", other, 0, 4)
    held.write(0, b"MINE")
    assert held.read(0, 4) == b"MINE" and regions.read("r", 0, 4) == b"hers"
    del held
    regions.unregister()
    assert regions.status() == [] and fds() == before


def test_no_more_regions_than_descriptors_can_be_spared(make, regions, monkeypatch):
    monkeypatch.setattr(shm, "MAX_REGIONS", 2)
    key = make(4)
    regions.register("a", key, 0, 4)
    regions.register("b", key, 0, 4)
    with refused(Kind.UNAVAILABLE):
        regions.register("c", key, 0, 4)


def test_no_descriptors_left_is_a_refusal(make, regions):
    key = make(4)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with refused():
            regions.register("r", key, 0, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
