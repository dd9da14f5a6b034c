# SPDX-License-Identifier: Apache-2.0
"""Every route of a whole server asks for credentials, and for those of its scope."""

import json
import signal
import time

import pytest
import tritonclient.grpc
from process import X, serving

from fastinfer.serve.access.keys import digest_of, new_key
from fastinfer.serve.admin import ACTIONS
from fastinfer.serve.http.app import App
from fastinfer.serve.http.operator import routes
from fastinfer.serve.messages import Limits

PARAMETERS = {"model": "double", "version": "1"}


def all_routes():
    """(method, path, scope) of every route there is."""

    class Nothing:
        def __getattr__(self, name):
            return None

    app = App(Nothing(), more=routes(Nothing(), Limits()))
    found = []

    def walk(node, path):
        for method, (scope, *_) in (node.methods or {}).items():
            found.append((method, path, scope))
        for segment, child in node.children.items():
            walk(child, f"{path}/{segment}")
        if node.other is not None:
            walk(node.other, f"{path}/{PARAMETERS.get(node.other.parameter, 'x')}")

    walk(app._router._root, "")
    return found


def keyed(tmp_path, **scopes):
    """A key file, and a key by name."""
    keys = {name: new_key()[0] for name in scopes}
    rows = [
        f'[[key]]\nname = "{n}"\nsha256 = "{digest_of(keys[n])}"\nscopes = {json.dumps(s)}\n' for n, s in scopes.items()
    ]
    path = tmp_path / "keys.toml"
    path.write_text("".join(rows))
    path.chmod(0o600)
    return path, keys


def test_no_route_is_open_without_credentials(root, tmp_path):
    path, keys = keyed(tmp_path, app=["infer"], ops=["read", "admin", "metrics"])
    everything = all_routes()
    assert len(everything) > 45 and {s for _, _, s in everything} == {"", "read", "infer", "admin", "metrics"}
    with serving(root, "--keys", path, folder=tmp_path) as s:
        connection = s.connect()
        for method, url, scope in everything:
            for verb in {method, "HEAD" if method == "GET" else method}:
                for variant in (url, url + "/", "/" + url, url.replace("/v2", "/%762", 1)):
                    status, _ = s.ask(verb, variant, {} if verb == "POST" else None, connection=connection)
                    if scope and variant == url:
                        assert status == 401, (verb, variant, status)
                    elif scope:
                        assert status in (401, 404), (verb, variant, status)
        for method, url, scope in everything:
            if not scope:
                continue
            who = {"X-API-Key": keys["app" if scope != "infer" else "ops"]}
            status, answer = s.ask(method, url, {} if method == "POST" else None, who, connection)
            assert status == 403 and scope in answer["error"], (method, url, status)
        assert s.infer("double", X, headers={"Authorization": f"Bearer {keys['app']}"})[0] == 200
        assert s.ask("GET", "/metrics", headers={"X-API-Key": keys["ops"]})[0] == 200
        assert (
            s.ask("GET", "/nowhere")[0] == 401
            and s.ask("GET", "/nowhere", headers={"X-API-Key": keys["ops"]})[0] == 404
        )
        assert s.ask("GET", "/v2/health/live")[0] == 200 and s.ask("GET", "/ui/")[0] == 200

        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{s.grpc_port}") as client:
            assert client.is_server_ready()
            with pytest.raises(tritonclient.grpc.InferenceServerException) as error:
                client.get_model_metadata("double")
            assert "UNAUTHENTICATED" in str(error.value)
            assert client.get_model_metadata("double", headers={"x-api-key": keys["ops"]}).name == "double"
        log = s.log.read_text()
        assert not any(key in log for key in keys.values())


def test_keys_are_read_again_on_sighup(root, tmp_path):
    path, keys = keyed(tmp_path, app=["read"])
    with serving(root, "--keys", path, folder=tmp_path) as s:
        ask = lambda key: s.ask("GET", "/v2", headers={"X-API-Key": key})[0]  # noqa: E731
        assert ask(keys["app"]) == 200
        _, new = keyed(tmp_path, app=["read"])
        s.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while ask(new["app"]) != 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert ask(new["app"]) == 200 and ask(keys["app"]) == 401


def test_every_action_has_a_route():
    assert {u.rsplit("/", 1)[1] for _, u, scope in all_routes() if u.startswith("/fastinfer/v1/models/")} == set(
        ACTIONS
    )
