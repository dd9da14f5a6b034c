# SPDX-License-Identifier: Apache-2.0
"""What a caller who was let in may not do: other models, what all share, the sequences of others; and pages of other
sites where nobody needs a key."""

import json
from pathlib import Path

import numpy as np
import pytest
from clients import Client
from doors import ask, bearer, secret
from tritonclient.utils import InferenceServerException

ONE = np.ones((1, 1), np.float32)
X = np.ones((1, 4), np.float32)


@pytest.fixture(params=["http", "grpc"])
def client(request, locked):
    with Client(request.param, getattr(locked, request.param)) as made:
        yield made


def post(server, path, value=None, **headers):
    body = b"" if value is None else json.dumps(value).encode()
    status, data = ask(server, f"POST {path} HTTP/1.1", body, [f"{n}: {v}" for n, v in headers.items()])
    return status, json.loads(data.partition(b"\r\n\r\n")[2] or "null")


def forbidden(call, *args, **kw):
    with pytest.raises(InferenceServerException, match="lacks the scope") as e:
        call(*args, **kw)
    assert e.value.status() in ("403", "StatusCode.PERMISSION_DENIED")


def test_admin_of_some_models_is_no_admin_of_what_all_share(client):
    owner = {"headers": bearer("owner")}
    for call, *args in (
        (client.get_log_settings,), (client.update_log_settings, {"log_info": True}), (client.get_trace_settings,),
        (client.update_trace_settings, None, {"trace_rate": "7"}), (client.unregister_system_shared_memory,),
        (client.get_system_shared_memory_status,), (client.unregister_system_shared_memory, "double-r"),
        (client.register_system_shared_memory, "double-r", "/x", 8), (client.load_model, "words"),
        (client.unload_model, "words"), (client.get_model_config, "words"), (client.get_trace_settings, "words"),
    ):  # fmt: skip
        forbidden(call, *args, **owner)
    assert client.json("update_trace_settings", "double", {"trace_rate": "7"}, **owner)
    client.load_model("double", **owner)


def test_lists_show_only_the_callers_models(client, locked):
    mine = {"double", "double-secret", "double-sum"}
    owner = {"headers": bearer("owner")}
    assert {m["name"] for m in client.json("get_model_repository_index", **owner)} == mine
    assert {m["name"] for m in client.json("get_inference_statistics", **owner)["model_stats"]} == mine
    assert "words" in {m["name"] for m in client.json("get_model_repository_index", headers=bearer("boss"))}
    _, data = ask(locked, "GET /fastinfer/v1/overview HTTP/1.1", headers=[f"x-api-key: {secret('owner')}"])
    assert {m["name"] for m in json.loads(data.partition(b"\r\n\r\n")[2])["models"]} == mine


def test_an_alias_does_not_stand_for_a_models_name(client, locked):
    """A key for "*double" is none for "double-secret@xdouble"."""
    path = "/fastinfer/v1/models/double-secret/alias"
    assert post(locked, path, {"alias": "xdouble", "version": "1"}, **bearer("boss"))[0] == 200
    assert client.ask("double-secret@xdouble", "x", X, headers=bearer("boss")).as_numpy("y")[0, 0] == 7
    forbidden(client.ask, "double-secret@xdouble", "x", X, headers=bearer("suffix"))
    assert client.ask("double", "x", X, headers=bearer("suffix")).as_numpy("y")[0, 0] == 3


def test_sequences_of_others_cannot_be_reached(client):
    step = lambda who, **o: client.ask(  # noqa: E731
        "double-sum", "x", ONE, sequence_id=5, headers=bearer(who), **o
    ).as_numpy("total").item()  # fmt: skip
    assert step("boss", sequence_start=True) == 1
    with pytest.raises(InferenceServerException, match="sequence_start"):
        step("owner")
    assert step("owner", sequence_start=True) == 1
    assert step("boss") == 2 and step("boss", sequence_end=True) == 3 and step("owner", sequence_end=True) == 2


def test_long_names_of_sequences_are_refused(client):
    """1024 sequences may be held, so their names are not for a client to fill memory with."""
    with pytest.raises(InferenceServerException, match="at most 256"):
        client.ask("double-sum", "x", ONE, sequence_id="s" * 257, sequence_start=True, headers=bearer("boss"))


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("127.0.0.1:1", None, True), ("127.0.0.1:1", "http://127.0.0.1:1", True), ("localhost:1", "http://localhost:1", True),
        ("[::1]:1", "http://[::1]:1", True), ("127.0.0.1:1", "http://127.0.0.1:2", False), ("127.0.0.1:1", "null", False),
        ("127.0.0.1:1", "https://evil.example", False), ("evil.example:1", "http://evil.example:1", False),
        ("127.0.0.1:1", "", False), ("localhost.evil.example", "http://localhost.evil.example", False),
        ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example", False),
    ],
)  # fmt: skip
def test_pages_of_other_sites(unlocked, host, origin, allowed):
    """A form or a script of any page can send a POST with a text body to an address of this machine."""
    headers = ["content-type: text/plain", *([] if origin is None else [f"origin: {origin}"])]
    for method, path in (
        ("POST", "/v2/repository/models/double/load"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2"),
    ):
        status, data = ask(unlocked, f"{method} {path} HTTP/1.1", headers=headers, host=host)
        assert status == (200 if allowed else 403), data
        assert b"access-control" not in data.lower()


def test_a_hostile_model_is_told_without_paths(client, locked):
    folder = locked.folder / "models" / "double-broken" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for text in (b"", b"\x08\x0a garbage", Path(__file__).read_bytes()):
            (folder / "model.onnx").write_bytes(text)
            with pytest.raises(InferenceServerException) as e:
                client.load_model("double-broken", headers=bearer("boss"))
            assert str(locked.folder) not in str(e.value) and "Traceback" not in str(e.value)
        index = client.json("get_model_repository_index", headers=bearer("boss"))
        reason = next(m["reason"] for m in index if m["name"] == "double-broken")
        assert reason and str(locked.folder) not in reason
    finally:
        (folder / "model.onnx").unlink()
        folder.rmdir()
        folder.parent.rmdir()


def test_logs_hold_one_record_a_line_and_no_secrets(locked):
    """CR, LF and ANSI in names, ids and headers; keys, right and nearly right ones."""
    evil = 'a%0d%0a%1b[31m{"message": "forged"}'
    key = f"authorization: Bearer {secret('boss')}"
    ask(locked, f"GET /v2/models/{evil} HTTP/1.1", headers=[key, "traceparent: \x1b[31m"])
    body = json.dumps({"id": "x\n\x1b[31mforged", "inputs": []}).encode()
    ask(locked, "POST /v2/models/double/infer HTTP/1.1", body, [key])
    ask(locked, "GET /v2 HTTP/1.1", headers=[f"authorization: Bearer {secret('boss')}x"])
    post(locked, "/fastinfer/v1/models/double/alias", {"alias": "\nforged", "version": "1"}, **bearer("boss"))
    post(locked, "/v2/repository/models/double/load", {"parameters": {"config": '{"\\nforged": 1}'}}, **bearer("boss"))
    post(locked, "/v2/repository/models/double/load", **bearer("boss"))  # is logged, and so ends the wait below
    text = locked.text()
    assert not [r for r in locked.records if r.get("raw") or r["message"].startswith("forged")]
    assert "\x1b" not in text and "fi_" not in text
