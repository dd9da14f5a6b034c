# SPDX-License-Identifier: Apache-2.0
"""Cases 16 to 21: what a body can say that is not so. Each is refused in words, and the server goes on."""

import gzip
import json
import zlib

import numpy as np
import pytest
from wire import GOOD, ROW, Connection, alive, ask, binary, chunked, mlp_input, request

INFER = "/v2/models/mlp/infer"
DATA = ROW.tobytes()


@pytest.fixture(autouse=True)
def lives_on(server):
    yield
    alive(server)


def refused(server, data, match, status=400):
    answer = ask(server, data)
    assert answer.status == status, answer
    assert match in answer.error
    assert "Traceback" not in answer.error and "/" not in answer.error.replace("and/or", "")


def post(value, path=INFER, **kw):
    return request(path, value if isinstance(value, bytes) else json.dumps(value).encode(), **kw)


# ------------------------------------------------------------------------------ 16: Inference-Header-Content-Length


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("-1", "needed: an integer"), ("abc", "needed: an integer"), ("1e3", "needed: an integer"),
        ("", "needed: an integer"), ("+5", "needed: an integer"), ("0x10", "needed: an integer"),
        ("9" * 30, "needed: an integer"), ("99999999", "the body has"), ("10", "not JSON"), ("1", "not JSON"),
        ("²", "needed: an integer"),
    ],
)  # fmt: skip
def test_header_length(server, header, match):
    refused(server, binary([mlp_input()], DATA, header), match)


def test_header_length_twice(server):
    refused(server, binary([mlp_input()], DATA, extra=[("Inference-Header-Content-Length", "5")]), "2 headers")


def test_header_length_absent(server):
    text = json.dumps({"inputs": [mlp_input()]}).encode()
    refused(server, request(INFER, text + DATA), "not JSON")


def test_raw_requests(server):
    zero = [("inference-header-content-length", "0")]
    answer = ask(server, request(INFER, DATA, headers=zero))
    assert answer.status == 200 and answer.headers["content-type"] == "application/octet-stream"
    want = server.service.models["mlp"].run({"x": ROW[None]})["y"]
    n = int(answer.headers["inference-header-content-length"])
    np.testing.assert_array_equal(np.frombuffer(answer.body[n:], np.float32), want[0])
    answer = ask(server, request("/v2/models/strings/versions/1/infer", b"abc", headers=zero))
    assert answer.body.endswith(b"\x03\0\0\0abc")
    refused(server, request("/v2/models/echo/infer", DATA, headers=zero), "one input")
    refused(server, request(INFER, DATA[:-1], headers=zero), "255 bytes")
    refused(server, request("/v2/models/none/infer", DATA, headers=zero), "no model", 404)


# ------------------------------------------------------------------------------------------- 17, 18: binary tensors


@pytest.mark.parametrize(
    ("size", "data", "match"),
    [
        (255, DATA, "255 bytes"), (0, DATA, "0 bytes"), (-256, DATA, "at least 0"), (257, DATA, "256 bytes left"),
        (1 << 62, DATA, "256 bytes left"), (1 << 70, DATA, "needed: an integer"), (256.0, DATA, "a number"),
        ("256", DATA, "a string"), (True, DATA, "true or false"), (None, DATA, "null"), (256, DATA + b"x", "1 bytes follow"),
        (256, DATA[:-1], "255 bytes left"), (256, b"", "0 bytes left"),
    ],
)  # fmt: skip
def test_binary_size(server, size, data, match):
    refused(server, binary([mlp_input(parameters={"binary_data_size": size})], data), match)


def test_sizes_beyond_the_body_together(server):
    inputs = [mlp_input(), mlp_input(name="y")]
    refused(server, binary(inputs, DATA + DATA[:100]), "100 bytes left")


def test_two_places_for_one_tensor(server):
    refused(server, binary([mlp_input(data=[0] * 64)], DATA), "needed: one of them")
    region = {"binary_data_size": 256, "shared_memory_region": "r"}
    refused(server, binary([mlp_input(parameters=region)], DATA), "needed: one of them")


@pytest.mark.parametrize(
    "blob",
    [
        b"\xff\xff\xff\xffab",
        b"\x03\0\0\0ab",
        b"\0\0\0",
        b"",
        b"\x02\0\0\0abc",
        b"\0\0\0\0" * 3,
        b"\x01\0\0\x80a",
        b"\xfe" * 4096,
    ],
)
def test_strings_that_lie_about_their_length(server, blob):
    given = {"name": "in0", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    refused(server, binary([given], blob, path="/v2/models/strings/infer"), "tensor 'in0'")


def test_shape_of_many_strings(server):
    given = {"name": "in0", "shape": [1 << 40, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 8}}
    refused(server, binary([given], b"\0" * 8, path="/v2/models/strings/infer"), "cannot hold")


# ---------------------------------------------------------------------------------------------------- 19: the tensors


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"shape": [1 << 32, 1 << 32]}, "too large"), ({"shape": [1 << 63]}, "extent"), ({"shape": [-1, 64]}, "extent -1"),
        ({"shape": [0, 1 << 61, 1 << 61]}, "too large"), ({"shape": [1] * 65}, "at most 64"), ({"shape": 64}, "a number"),
        ({"shape": [1.0, 64]}, "integers"), ({"shape": [True, 64]}, "integers"), ({"shape": None}, "null"),
        ({"shape": [64]}, "x"), ({"shape": [64, 1]}, "x"), ({"datatype": "FP64"}, "needs 512"), ({"datatype": "fp32"}, "no datatype"),
        ({"datatype": None}, "no datatype"), ({"datatype": ["FP32"]}, "no datatype"), ({"name": 5}, "a number"),
        ({"name": "x\r\nevil"}, "control characters"), ({"name": "x" * 300}, "300 characters"), ({"name": "q"}, "given: q"),
        ({"parameters": []}, "a list"), ({"parameters": {"a": {}}}, "an object"), ({"parameters": {"a": None}}, "null"),
    ],
)  # fmt: skip
def test_tensors(server, changes, match):
    if "parameters" not in changes:
        changes = {**changes, "parameters": {"binary_data_size": 256}}
    refused(server, binary([mlp_input(**changes)], DATA), match)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([0] * 63, "63 elements"), ([0] * 65, "65 elements"), ([], "0 elements"), ([[0] * 32] * 2, "nested as [2, 32]"),
        ([[0] * 64, [0] * 63], "different lengths"), ([[0] * 63, 0], "side by side"), ([0, [0] * 63], "64 elements" ),
        (["a"] * 64, "a string"), ([None] * 64, "null"), ([True] * 64, "true or false"), ([{}] * 64, "an object"),
        ([1e300] * 64, "out of range"), ([10**40] * 64, "out of range"), ("AAAA", "a string"), (5, "a number"),
        (None, "missing"), (["1.5"] * 64, "a string"),
    ],
)  # fmt: skip
def test_lists(server, data, match):
    given = {"name": "x", "shape": [1, 64], "datatype": "FP32", **({} if data is None else {"data": data})}
    answer = ask(server, post({"inputs": [given]}))
    assert answer.status == 400 and answer.error.startswith("tensor 'x'")
    assert match in answer.error or match in ("64 elements", "missing")


@pytest.mark.parametrize(
    ("datatype", "data", "fits"),
    [
        ("INT8", [-128, 127], True), ("INT8", [128], False), ("UINT8", [-1], False), ("INT64", [2**63 - 1, -(2**63)], True),
        ("INT64", [2**63], False), ("UINT64", [2**64 - 1, 0], True), ("UINT64", [-1], False), ("UINT64", [2**64], False),
        ("INT32", [1.0], False), ("BOOL", [True, 0, 1], True), ("BOOL", [2], False), ("FP64", [1e308], True),
        ("FP32", ["NaN", "-Infinity", 1], True), ("FP32", ["nan"], False), ("FP32", ["NaN", 1e39], False), ("UINT16", [65536], False),
    ],
)  # fmt: skip
def test_ranges(server, datatype, data, fits):
    given = {"name": "x", "shape": [len(data)], "datatype": datatype, "data": data}
    error = ask(server, post({"inputs": [given]})).error  # mlp takes none of them: what counts is who refuses
    assert ("tensor 'x':" in error) != fits


@pytest.mark.parametrize(
    ("root", "match"),
    [
        ({}, "'inputs' is missing"), ({"inputs": {}}, "an object"), ({"inputs": [5]}, "a list"), ({"inputs": []}, "missing input"),
        ([], "a list"), (5, "a number"), (None, "null"), ("x", "a string"), (b"", "'inputs' is missing"),
        ({"inputs": [mlp_input(data=[0] * 64, parameters={})] * 2}, "given twice"),
        ({"inputs": [{"name": f"x{i}"} for i in range(1025)]}, "1025 inputs"),
        ({"inputs": [{"datatype": "FP32"}]}, "'name' is missing"),
    ],
)  # fmt: skip
def test_requests(server, root, match):
    refused(server, post(root), match)


@pytest.mark.parametrize(
    ("root", "match"),
    [
        ({"outputs": [{"name": "y"}] * 2}, "asked for twice"), ({"outputs": [{"name": "q"}]}, "no output"),
        ({"outputs": [{"name": f"y{i}"} for i in range(10**5 // 4)]}, "at most 1024"), ({"outputs": {}}, "an object"),
        ({"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, "at least 1"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, "a string"), ({"outputs": 5}, "a number"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 1, "shared_memory_region": "r"}}]}, "shared memory"),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, "shared_memory_byte_size"),
        ({"id": 5}, "a number"), ({"id": "x" * 300}, "300 characters"), ({"id": "a\nb"}, "control characters"),
        ({"parameters": {"timeout": -1}}, "at least 0"), ({"parameters": {"timeout": "5"}}, "'timeout'"),
        ({"parameters": {"priority": 1.5}}, "'priority'"), ({"parameters": {"binary_data_output": 1}}, "a number"),
        ({"parameters": {"sequence_id": -1}}, "at least 0"), ({"parameters": {"sequence_start": 0}}, "'sequence_start'"),
        ({"parameters": {f"p{i}": 1 for i in range(300)}}, "256 members"),
    ],
)  # fmt: skip
def test_members(server, root, match):
    refused(server, post({"inputs": [mlp_input(data=[0.0] * 64, parameters={})], **root}), match)


def test_huge_classification_is_all(server):
    outputs = [{"name": "y", "parameters": {"classification": 1 << 60}}]
    answer = ask(server, post({"inputs": [mlp_input(data=[0.0] * 64, parameters={})], "outputs": outputs}))
    assert answer.json["outputs"][0]["shape"] == [1, 10]


# ----------------------------------------------------------------------------------------------------------- 20: JSON


@pytest.mark.parametrize(
    ("text", "match", "status"),
    [
        (b"[" * 10**5, "nested 100000 deep", 400), (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "nested 100000 deep", 400),
        (b'{"a":"\\"", "b":' + b"[" * 40 + b"]" * 40 + b"}", "nested 41 deep", 400),
        (b"[" + b"[]," * 300_000 + b"[]]", "a list", 400), (b"{" + b'"a":1,' * 10**5 + b'"b":1}', "'inputs' is missing", 400),
        (b'{"inputs":NaN}', "NaN or Infinity at byte 10", 400), (b'{"inputs":[-Infinity]}', "NaN or Infinity", 400),
        (b'{"inputs":[{"data":[1,NaN]}]}', "NaN or Infinity", 400), (b'{"a":1e999}', "not JSON", 400),
        (b"1" * 5000, "not JSON", 400), (b'"\xff\xfe"', "not JSON", 400), (b"\xef\xbb\xbf{}", "not JSON", 400),
        (b'{"a":"\\ud800"}', "not JSON", 400), (b"{'a':1}", "not JSON", 400), (b"{} {}", "not JSON", 400), (b'{"a":1,}', "not JSON", 400),
        (b'"' + b'\\"' * 400_000, "not JSON", 400), (b"\0" * 1000, "not JSON", 400), (b" " * ((1 << 20) + 1), "at most 1048576", 413),
    ],
    ids=lambda v: None if isinstance(v, int) else repr(v[:20]),
)  # fmt: skip
def test_json(server, text, match, status):
    refused(server, post(text), match, status)


def test_brackets_in_strings_are_no_nesting(server):
    given = {"name": "in0", "shape": [1, 3], "datatype": "BYTES", "data": ["[" * 100, '"{' * 50 + "\\", "]"]}
    answer = ask(server, post({"inputs": [given]}, "/v2/models/strings/infer"))
    assert answer.json["outputs"][0]["data"] == given["data"]


def test_the_last_of_two_members_counts(server):
    text = b'{"inputs":5,"id":"a","id":"b","inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[%b]}]}'
    assert ask(server, post(text % b",".join([b"1"] * 64))).json["id"] == "b"


# ---------------------------------------------------------------------------------------------------- 21: compression


def packed(data, coding, head=len):
    text = json.dumps({"inputs": [mlp_input()]}).encode()
    headers = [("inference-header-content-length", head(text)), ("content-encoding", coding)]
    return request(INFER, data(text + DATA), headers=headers)


def test_gzip_and_deflate(server):
    for coding, pack in (
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("GZIP", gzip.compress),
        ("identity", bytes),
    ):
        assert ask(server, packed(pack, coding)).status == 200


@pytest.mark.parametrize(
    ("coding", "pack", "match", "status"),
    [
        ("gzip", lambda d: gzip.compress(d)[:-9], "cut off", 400), ("gzip", lambda d: gzip.compress(d) + b"x", "1 bytes follow", 400),
        ("gzip", lambda d: b"", "cut off", 400), ("deflate", gzip.compress, "not deflate", 400), ("gzip", bytes, "not gzip", 400),
        ("deflate", lambda d: zlib.compress(d)[2:-4], "not deflate", 400),
        ("gzip, gzip", lambda d: gzip.compress(gzip.compress(d)), "once", 415), ("gzip,deflate", gzip.compress, "once", 415),
        ("br", bytes, "gzip or deflate", 415), ("zstd", bytes, "gzip or deflate", 415), ("x" * 5000, bytes, "gzip or deflate", 415),
        ("gzip", lambda d: gzip.compress(bytes(4 << 20) + d), "4194304 bytes once decompressed", 413),
        ("deflate", lambda d: zlib.compress(bytes(200 << 20), 9), "4194304 bytes once decompressed", 413),
    ],
)  # fmt: skip
def test_compressed_bodies(server, coding, pack, match, status):
    refused(server, packed(pack, coding), match, status)


def test_encoding_twice(server):
    text = request(INFER, b"x", headers=[("content-encoding", "gzip"), ("content-encoding", "gzip")])
    refused(server, text, "2 headers content-encoding")


@pytest.mark.parametrize(
    ("accept", "coding"),
    [("gzip", "gzip"), ("deflate", "deflate"), ("gzip;q=0.5", "gzip"), ("gzip;q=0", None), ("br", None), ("*", None),
     ("gzip, deflate, br", None), ("gzip ; q = 0.000", None), ("", None)],
)  # fmt: skip
def test_answers_are_compressed_where_asked(server, accept, coding):
    given = {"name": "in0", "shape": [10, 300], "datatype": "FP32", "data": [0.0] * 3000}
    answer = ask(server, post({"inputs": [given]}, "/v2/models/floats/infer", headers=[("accept-encoding", accept)]))
    assert answer.headers.get("content-encoding") == coding
    body = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding](answer.body)
    assert json.loads(body)["outputs"][0]["data"] == [0.0] * 3000
    small = ask(server, binary([mlp_input()], DATA, extra=[("accept-encoding", accept)]))
    assert "content-encoding" not in small.headers  # not worth it


# ------------------------------------------------------------------------------------------------ plain JSON for curl


def test_predict(server):
    want = server.service.models["mlp"].run({"x": ROW[None]})["y"].tolist()
    for body in ({"x": [ROW.tolist()]}, [ROW.tolist()]):
        answer = ask(server, post(body, "/predict/mlp"))
        np.testing.assert_allclose(answer.json["y"], want, rtol=1e-6)
    echo = {"in0": [[1, 2.5]], "in1": [[3, -4]], "in2": [[True, False]]}
    assert ask(server, post(echo, "/predict/echo")).json == {o.replace("in", "out"): v for o, v in echo.items()}
    assert ask(server, post([["grüße"]], "/predict/strings")).json == {"out0": [["grüße"]]}
    assert ask(server, post([["NaN", 0.1, "-Infinity"]], "/predict/floats")).json == {
        "out0": [["NaN", 0.1, "-Infinity"]]
    }
    assert ask(server, post([[0.5]], "/predict/half")).json == {"out0": [[0.5]]}
    assert ask(server, post([[], []], "/predict/floats")).json == {"out0": [[], []]}


@pytest.mark.parametrize(
    ("path", "body", "match", "status"),
    [
        ("/predict/echo", [[1]], "needed: an object", 400), ("/predict/mlp", {"q": [1]}, "no input is called 'q'", 400),
        ("/predict/mlp", {}, "missing input", 400), ("/predict/none", [1], "no model", 404), ("/predict/mlp", [[1], [1, 2]], "lengths", 400),
        ("/predict/mlp", [["a"] * 64], "a string", 400), ("/predict/mlp", b"", "not JSON", 400), ("/predict/mlp", b"curl", "not JSON", 400),
    ],
)  # fmt: skip
def test_predict_refuses(server, path, body, match, status):
    refused(server, post(body, path), match, status)


def test_deadlines(server):
    """As a parameter and as a header; both in microseconds."""
    for data in (
        binary([mlp_input()], DATA, parameters={"timeout": 1}), binary([mlp_input()], DATA, extra=[("timeout", "1")]),
    ):  # fmt: skip
        answer = ask(server, data)
        assert answer.status in (200, 504) and server.service.last.timeout == 1e-6
    refused(server, binary([mlp_input()], DATA, extra=[("timeout", "soon")]), "the header timeout")


# ---------------------------------------------------------------------------------------------------------- 22: chunks


def test_many_chunks(server):
    text = json.dumps({"inputs": [mlp_input(data=[0.0] * 64, parameters={})]}).encode()
    body = text + b" " * (65_537 - len(text))
    data = request(INFER, headers=[("transfer-encoding", "chunked")], length=False)
    assert ask(server, data + chunked(*(body[i : i + 1] for i in range(len(body))))).status == 200


def test_chunks_without_end(server):
    with Connection(server) as c:
        c.send(request(INFER, headers=[("transfer-encoding", "chunked")], length=False))
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(100):  # the limit is 64 of them
            try:
                c.send(chunk)
            except OSError:
                break
        answer = c.answer()
        assert answer.status == 413 and "4194304" in answer.error and answer.headers["connection"] == "close"


def test_the_connection_goes_on_after_an_error(server):
    with Connection(server) as c:
        for _ in range(3):
            c.send(post(b"{"))
            assert c.answer().status == 400
        c.send(GOOD)
        assert c.answer().status == 200
