# SPDX-License-Identifier: Apache-2.0
"""tritonclient 2.73 unmodified against a server process: every call of its four clients, with the same answers on both
wires."""

import asyncio
import inspect
import json
import queue
import re
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils.shared_memory as shared
from clients import MODULES, Client
from small_models import scale
from tritonclient.utils import InferenceServerException, triton_to_np_dtype
from typed_models import SLOW, TYPES

X = np.arange(12, dtype=np.float32).reshape(3, 4)
NOT_FOUND = {"404", "StatusCode.NOT_FOUND"}


def texts(array):
    return [s.decode() if isinstance(s, bytes) else s for s in array.ravel()]


def refused(client, http, grpc, match, call, *args, **kw):
    with pytest.raises(InferenceServerException, match=match) as e:
        call(*args, **kw)
    assert e.value.status() == (str(http) if client.wire == "http" else f"StatusCode.{grpc}")


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("double") and client.is_model_ready("double", "2")
    assert not client.is_model_ready("nobody") and not client.is_model_ready("double", "1")
    meta = client.json("get_server_metadata")
    assert meta["name"] == "fastinfer" and {"binary_tensor_data", "statistics", "sequence"} <= set(meta["extensions"])
    model = client.json("get_model_metadata", "double", "2")
    assert (model["name"], model["versions"], model["platform"]) == ("double", ["2"], "fastinfer")
    (given,), (made,) = model["inputs"], model["outputs"]
    assert (given["name"], given["datatype"], [int(d) for d in given["shape"]]) == ("x", "FP32", [-1, 4])
    assert (made["name"], made["datatype"], [int(d) for d in made["shape"]]) == ("y", "FP32", [-1, 4])
    refused(client, 404, "NOT_FOUND", "no model is called 'nobody'", client.get_model_metadata, "nobody")


def test_configuration(client):
    config = client.json("get_model_config", "double")
    assert config["max_batch_size"] == 8 and config["parameters"]["owner"] == {"string_value": "me"}
    assert config["input"][0]["data_type"] == "TYPE_FP32" and [int(d) for d in config["input"][0]["dims"]] == [4]
    queued = config["dynamic_batching"]["default_queue_policy"]
    assert int(queued["default_timeout_microseconds"]) == 60_000_000
    state = client.json("get_model_config", "sum")["sequence_batching"]
    assert int(state["max_sequence_idle_microseconds"]) == 60_000_000
    refused(client, 404, "NOT_FOUND", "no version '7'", client.get_model_config, "double", "7")


def test_statistics(client):
    def count():
        (one,) = client.json("get_inference_statistics", "double", "2")["model_stats"]
        return int(one.get("inference_count", 0)), int(one["inference_stats"]["success"].get("count", 0))

    rows, requests = count() if client.ask("double", "x", X) else None
    client.ask("double", "x", X)
    assert count() == (rows + 3, requests + 1)
    assert {"double", "sum", "slow"} <= {s["name"] for s in client.json("get_inference_statistics")["model_stats"]}


def test_repository(client):
    value = lambda **o: float(client.ask("double", "x", X, **o).as_numpy("y")[0, 1])  # noqa: E731
    index = {(m["name"], m["version"]): m["state"] for m in client.json("get_model_repository_index")}
    assert index["double", "2"] == "READY" and index["double", "1"] == "UNAVAILABLE"
    try:
        client.load_model("double", config=json.dumps({"version_policy": {"all": {}}}))
        assert value(model_version="1") == 2 and value() == 3
        if client.kind != "http-aio":  # which gives rapidjson bytes, and so cannot send any
            client.load_model("double", config="{}", files={"file:5/model.onnx": scale(9).SerializeToString()})
            assert value() == 9
        client.unload_model("double", unload_dependents=True)
        assert not client.is_model_ready("double")
        refused(client, 503, "UNAVAILABLE", "model 'double' is not loaded", value)
    finally:
        client.load_model("double")
    assert value() == 3
    refused(client, 404, "NOT_FOUND", "no model is called 'nobody'", client.load_model, "nobody")
    wrong = '{"dynamic_bathing": {}}'
    refused(client, 400, "INVALID_ARGUMENT", "no key is called", client.load_model, "double", config=wrong)
    assert value() == 3


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("datatype", [*(t for t in TYPES if t != "BYTES")])
def test_every_datatype(client, datatype, binary):
    if not binary and client.wire == "grpc":
        pytest.skip("gRPC has one form")
    array = np.array([[0, 1, 2], [1, 0, 100]]).astype(triton_to_np_dtype(datatype))
    ask = lambda given, made: client.infer(  # noqa: E731
        f"same-{datatype.lower()}",
        [client.tensor("x", array, datatype, binary_data=given)],
        outputs=[client.wanted("y", made)],
    )
    if not binary and datatype in ("FP16", "BF16"):
        refused(client, 400, "", f"{datatype} has no JSON form", ask, True, False)
        return
    result = ask(binary, binary)
    entry = result.get_output("y")
    assert (entry["datatype"] if client.wire == "http" else entry.datatype) == datatype
    np.testing.assert_array_equal(result.as_numpy("y"), array)


def test_strings(client):
    array = np.array([["grüße", ""], ["a\0b", '"\\']], object)
    for binary in (True, False):
        given, made = client.tensor("x", array, "BYTES", binary_data=binary), client.wanted("y", binary)
        assert texts(client.infer("same-bytes", [given], outputs=[made]).as_numpy("y")) == list(array.ravel())


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client, algorithm):
    large = np.zeros((40, 3000), np.float32)
    large[0, 0] = 5
    options = (
        {"compression_algorithm": algorithm} if client.wire == "grpc" else
        {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    )  # fmt: skip
    for binary in (True, False):
        given, made = client.tensor("x", large, binary_data=binary), client.wanted("y", binary)
        result = client.infer("same-fp32", [given], outputs=[made], **options)
        np.testing.assert_array_equal(result.as_numpy("y"), large)


def test_what_is_not_finite(client):
    array = np.array([[np.nan, np.inf, -np.inf, 0.1]], np.float32)
    for binary in (True, False):
        result = client.infer("same-fp32", [client.tensor("x", array)], outputs=[client.wanted("y", binary)])
        np.testing.assert_array_equal(result.as_numpy("y"), array)


def test_classification(client):
    array = np.array([[0.1, 0.9, 0.5], [np.nan, 3, 3]], np.float32)
    best = client.ask("same-fp32", "x", array, outputs=[client.wanted("y", class_count=2)]).as_numpy("y")
    assert best.shape == (2, 2) and texts(best) == ["0.900000:1", "0.500000:2", "3.000000:1", "3.000000:2"]


@pytest.mark.parametrize("key", [7, "seven"])
def test_sequences(client, key):
    one, key = np.ones((1, 1), np.float32), f"{key}-{client.kind}" if key == "seven" else key + hash(client.kind) % 1000
    options = [dict(sequence_start=i == 0, sequence_end=i == 2) for i in range(3)]
    totals = [client.ask("sum", "x", one, sequence_id=key, **o).as_numpy("total").item() for o in options]
    assert totals == [1, 2, 3]
    refused(client, 400, "INVALID_ARGUMENT", "sequence_start", client.ask, "sum", "x", one, sequence_id=key)


def test_ids_versions_priorities_and_parameters(client):
    result = client.ask("double", "x", X, request_id="r-1", model_version="2", priority=1, parameters={"mine": "a"})
    response = result.get_response(as_json=True) if client.wire == "grpc" else result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("r-1", "double", "2")
    np.testing.assert_array_equal(result.as_numpy("y"), 3 * X)


def executed(client):
    (one,) = client.json("get_inference_statistics", "slow")["model_stats"]
    return int(one.get("execution_count", 0))


def test_timeouts(client):
    """A request whose time is over never runs. The one before it holds the model."""
    client.ask("slow", "x", SLOW[:1])
    before = executed(client)
    call = lambda **o: client.ask("slow", "x", SLOW, **o)  # noqa: E731
    refused(client, 504, "DEADLINE_EXCEEDED", "time|deadline", call, timeout=1)
    assert executed(client) == before
    if client.wire == "grpc":
        with pytest.raises(InferenceServerException, match="Deadline|504|DEADLINE"):
            call(client_timeout=0.001)
    assert call(timeout=60_000_000).as_numpy("y").shape == SLOW.shape


FIRST, CANCELLED = 5, 2  # the last of them would begin half a second after the first


def test_cancelled_requests_do_not_run(client, whole):
    """Some requests hold the model, those behind them are cancelled; what comes later is answered."""
    if client.kind == "http":
        pytest.skip("has no way to cancel")
    before, given = executed(client), [client.tensor("x", SLOW)]
    if client.kind == "grpc":
        done = queue.Queue()
        put = lambda result, error: done.put(error)  # noqa: E731
        calls = [client.async_infer("slow", given, put) for _ in range(FIRST + CANCELLED)]
        for call in calls[FIRST:]:
            call.cancel()
        errors = [done.get(timeout=60) for _ in calls]
        assert [e.status() for e in errors if e is not None] == ["StatusCode.CANCELLED"] * CANCELLED
    else:

        async def main():
            tasks = [asyncio.ensure_future(client.client.infer("slow", given)) for _ in range(FIRST + CANCELLED)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=60)  # the others are on their way
            for task in tasks[FIRST:]:
                task.cancel()
            await asyncio.wait(tasks, timeout=60)
            return [t.cancelled() for t in tasks]

        assert client.wait(main()) == [False] * FIRST + [True] * CANCELLED
    with Client("http", whole.http) as other:
        assert other.ask("slow", "x", SLOW[:1]).as_numpy("y").shape == (1, 4)
    # A cancellation needs time to reach the server: the first of them may run all the same.
    assert before + FIRST < executed(client) < before + FIRST + CANCELLED + 1


@pytest.fixture
def memory():
    """Two objects in /dev/shm: for an input behind 8 bytes, and for an output behind 16."""
    keys = [f"/fi_conformance_{uuid.uuid4().hex}" for _ in range(2)]
    handles = [shared.create_shared_memory_region(k, k, n) for k, n in zip(keys, (X.nbytes + 8, X.nbytes + 16))]
    yield list(zip(keys, handles))
    for handle in handles:
        shared.destroy_shared_memory_region(handle)


def test_system_shared_memory(client, memory):
    (key, handle), (key2, handle2) = memory
    client.register_system_shared_memory("in", key, X.nbytes + 8)
    client.register_system_shared_memory("out", key2, X.nbytes, offset=16)
    try:
        regions = client.json("get_system_shared_memory_status", "out")
        region = regions[0] if client.wire == "http" else regions["regions"]["out"]
        assert (region["name"], region["key"], int(region["offset"]), int(region["byte_size"])) == ("out", key2, 16, 48)
        shared.set_shared_memory_region(handle, [X], offset=8)
        given, output = client.module.InferInput("x", [3, 4], "FP32"), client.wanted("y")
        given.set_shared_memory("in", X.nbytes, offset=8)
        output.set_shared_memory("out", X.nbytes)
        entry = client.infer("double", [given], outputs=[output]).get_output("y")
        assert "shared_memory_region" in (entry["parameters"] if client.wire == "http" else entry.parameters)
        np.testing.assert_array_equal(shared.get_contents_as_numpy(handle2, np.float32, [3, 4], offset=16), 3 * X)
        given.set_shared_memory("in", X.nbytes, offset=12)
        refused(client, 400, "INVALID_ARGUMENT", "'in'", client.infer, "double", [given])
        again = lambda: client.register_system_shared_memory("in", key, 8)  # noqa: E731
        refused(client, 400, "ALREADY_EXISTS", "registered already", again)
    finally:
        client.unregister_system_shared_memory("in")
        client.unregister_system_shared_memory()
    assert client.json("get_system_shared_memory_status") in ([], {})
    refused(client, 404, "NOT_FOUND", "in", client.infer, "double", [given])


def test_cuda_shared_memory_is_refused(client):
    assert client.json("get_cuda_shared_memory_status") in ([], {})
    client.unregister_cuda_shared_memory()  # what examples and perf_analyzer do before they begin
    text = "no CUDA shared memory"
    refused(client, 501, "UNIMPLEMENTED", text, client.register_cuda_shared_memory, "r", b"aGFuZGxl", 0, 64)
    refused(client, 501, "UNIMPLEMENTED", text, client.get_cuda_shared_memory_status, "r")


def test_trace_settings(client, whole, loop):
    def of(value):
        return {k: v["value"] if len(v["value"]) > 1 or k == "trace_level" else v["value"][0]
                for k, v in value["settings"].items()} if client.wire == "grpc" else value  # fmt: skip

    assert of(client.json("get_trace_settings"))["trace_level"] == ["OFF"]
    change = lambda *a, **k: of(client.json("update_trace_settings", *a, **k))  # noqa: E731
    assert change(settings={"trace_rate": "5"})["trace_rate"] == "5"
    assert change("double", {"trace_level": ["TIMESTAMPS"]})["trace_level"] == ["TIMESTAMPS"]
    assert of(client.json("get_trace_settings", "double"))["trace_rate"] == "5"
    other = Client("http" if client.wire == "grpc" else "grpc", whole.http if client.wire == "grpc" else whole.grpc)
    try:  # one set for both wires
        assert "TIMESTAMPS" in json.dumps(other.json("get_trace_settings", "double"))
    finally:
        other.close()
    assert change("double", {"trace_level": None})["trace_level"] == ["OFF"]
    assert change(settings={"trace_rate": None})["trace_rate"] == "1000"
    refused(client, 400, "INVALID_ARGUMENT", "operator's", client.update_trace_settings, settings={"trace_file": "/x"})
    refused(client, 404, "NOT_FOUND", "nobody", client.update_trace_settings, "nobody", {"trace_rate": "5"})


def test_log_settings(client):
    of = lambda v: {k: next(iter(s.values())) for k, s in v["settings"].items()} if client.wire == "grpc" else v  # noqa: E731
    assert of(client.json("get_log_settings"))["log_info"] is True
    assert of(client.json("update_log_settings", {"log_verbose_level": 1}))["log_verbose_level"] == 1
    assert (
        of(client.json("update_log_settings", {"log_verbose_level": 0, "log_format": "ISO8601"}))["log_format"]
        == "ISO8601"
    )
    assert of(client.json("update_log_settings", {"log_format": "default"}))["log_verbose_level"] == 0
    refused(
        client, 400, "INVALID_ARGUMENT", "operator's to say", client.update_log_settings, {"log_file": "/etc/passwd"}
    )
    refused(client, 400, "INVALID_ARGUMENT", "no log setting", client.update_log_settings, {"log_everything": True})


@pytest.mark.parametrize(
    ("model", "name", "array", "options", "http", "grpc", "text"),
    [
        ("nobody", "x", X, {}, 404, "NOT_FOUND", "no model is called 'nobody'"),
        ("double", "z", X, {}, 400, "INVALID_ARGUMENT", "no input is called 'z'"),
        ("double", "x", X[:, :3], {}, 400, "INVALID_ARGUMENT", "needed: FP32"),
        ("double", "x", X, {"model_version": "01"}, None, None, "version '01'"),
        ("double", "x", X, {"model_version": "9"}, 404, "NOT_FOUND", "no version '9'"),
        ("../double", "x", X, {}, None, None, "."),
    ],
)
def test_errors_are_readable(client, model, name, array, options, http, grpc, text):
    with pytest.raises(InferenceServerException, match=text) as e:
        client.ask(model, name, array, **options)
    status = e.value.status()
    assert status in (
        str(http),
        f"StatusCode.{grpc}",
        *(() if http else ("400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")),
    )
    unknown = [client.wanted("q")]
    refused(client, 400, "INVALID_ARGUMENT", "no output is called 'q'", client.ask, "double", "x", X, outputs=unknown)


def test_async_infer_over_http(whole):
    with tritonclient.http.InferenceServerClient(whole.http, concurrency=4) as client:
        given = [tritonclient.http.InferInput("x", [1, 4], "FP32").set_data_from_numpy(X[i : i + 1]) for i in range(3)]
        requests = [client.async_infer("double", [one]) for one in given]
        rows = [r.get_result(timeout=20).as_numpy("y") for r in requests]
    np.testing.assert_array_equal(np.concatenate(rows), 3 * X)


def test_bodies_that_the_client_makes_and_reads(whole):
    """For those who send requests in their own way."""
    cls = tritonclient.http.InferenceServerClient
    given = tritonclient.http.InferInput("x", [3, 4], "FP32").set_data_from_numpy(X)
    body, length = cls.generate_request_body([given], request_id="own")
    request = urllib.request.Request(f"http://{whole.http}/v2/models/double/infer", body, method="POST")
    request.add_header("Inference-Header-Content-Length", str(length))
    with urllib.request.urlopen(request, timeout=20) as answer:
        header = answer.headers["Inference-Header-Content-Length"]
        result = cls.parse_response_body(answer.read(), header_length=int(header))
    np.testing.assert_array_equal(result.as_numpy("y"), 3 * X)


def test_streams(whole):
    done = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(whole.grpc) as client:
        client.start_stream(lambda result, error: done.put((result, error)))
        for i in range(5):
            name = "x" if i != 3 else "wrong"
            given = tritonclient.grpc.InferInput(name, [3, 4], "FP32").set_data_from_numpy(X + i)
            client.async_stream_infer("double", [given], request_id=str(i), enable_empty_final_response=i == 1)
        answers = [done.get(timeout=20) for _ in range(5)]
        client.stop_stream()
    for i, (result, error) in enumerate(answers):
        if i == 3:
            assert "no input is called 'wrong'" in error.message()
        else:
            assert error is None and result.get_response().id == str(i)
            np.testing.assert_array_equal(result.as_numpy("y"), 3 * (X + i))


def test_streams_of_sequences_and_the_asyncio_client(whole, loop):
    one = np.ones((1, 1), np.float32)

    async def requests():
        for i in range(4):
            given = tritonclient.grpc.InferInput("x", [1, 1], "FP32").set_data_from_numpy(one)
            yield {"model_name": "sum", "inputs": [given], "sequence_id": 99,
                   "sequence_start": i == 0, "sequence_end": i == 3}  # fmt: skip

    async def main():
        async with MODULES["grpc-aio"].InferenceServerClient(whole.grpc) as client:
            return [r.as_numpy("total").item() async for r, e in client.stream_infer(requests()) if e is None]

    assert loop.run_until_complete(main()) == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", MODULES)
def test_no_call_is_left_out(kind):
    """register_plugin, unregister_plugin and plugin: hostile/test_doors.py."""
    source = "".join(p.read_text() for p in (Path(__file__), *Path(__file__).parents[1].glob("hostile/test_doors.py")))
    source += Path(__file__).parents[1].joinpath("clients.py").read_text()
    cls = MODULES[kind].InferenceServerClient
    calls = [n for n, _ in inspect.getmembers(cls, inspect.isfunction) if not n.startswith("_")]
    assert not [n for n in calls if not re.search(rf"[.\"]{n}\b", source)]


def test_log_settings_do_what_they_say(client, whole):
    """A load is logged as information: not while information is off, and again when it is on."""
    loads = lambda: sum("serves version" in r["message"] for r in whole.records)  # noqa: E731

    def load():
        client.load_model("double", config='{"version_policy": {"all": {}}}')
        client.load_model("double")

    load()
    try:
        client.update_log_settings({"log_info": False})
        before = loads()
        load()
        client.update_log_settings({"log_info": True})
        load()
        whole.until(lambda r: loads() >= before + 2, 10)
        assert loads() <= before + 3  # of the load before, a line may have been under way
    finally:
        client.update_log_settings({"log_info": True})
