# SPDX-License-Identifier: Apache-2.0
"""The page's files as they are served, and what they may do."""

import re
from pathlib import Path

import pytest
from shown_models import READER

import fastinfer.serve.ui as ui

STATIC = Path(ui.__file__).parent / "static"
FILES = sorted(p.name for p in STATIC.iterdir())


def test_every_file_is_served_with_a_strict_policy(server):
    for name in ["", *FILES]:
        status, headers, body = server.ask("GET", f"/ui/{name}")
        assert status == 200 and body == (STATIC / (name or "index.html")).read_bytes()
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"] and policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        again, _, nothing = server.ask("GET", f"/ui/{name}", headers={"If-None-Match": headers["etag"]})
        assert again == 304 and nothing == b""
    assert server.ask("GET", "/ui")[:1] == (308,) and server.ask("GET", "/ui")[1]["location"] == "/ui/"
    assert server.ask("GET", "/ui/../server.py")[0] == 404 and server.ask("GET", "/ui/%2e%2e%2fapp.py")[0] == 400


def test_the_files_need_no_key_and_the_figures_do(guarded):
    assert guarded.ask("GET", "/ui/")[0] == 200 and guarded.ask("GET", "/ui/main.js")[0] == 200
    assert guarded.ask("GET", "/fastinfer/v1/overview")[0] == 401
    assert guarded.ask("GET", "/fastinfer/v1/overview", key=READER)[0] == 200


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_asked_of_other_hosts_and_no_text_becomes_markup(name):
    text = (STATIC / name).read_text()
    assert "SPDX-License-Identifier" in text
    assert [u for u in re.findall(r"https?://[^\s\"'`)]+", text) if u != "http://www.w3.org/2000/svg"] == []
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|style=\"", text) == []
    )
    assert re.findall(r"localStorage|document\.cookie", text) == []
