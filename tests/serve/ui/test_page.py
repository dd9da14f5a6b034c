# SPDX-License-Identifier: Apache-2.0
"""What the page shows of models: listed, live, harmless, usable with a keyboard and on a small screen."""

import threading
from urllib.parse import urlsplit

import pytest
from browser import ENTER, TAB
from shown_models import MARKUP
from small_models import put, scale

from fastinfer.serve.config import Config

CELL = "return [...document.querySelectorAll('tbody tr')].find(r => r.querySelector('th')?.innerText.startsWith(arguments[0]))"


def cells(browser, version):
    """Of a version's row: version, state, traffic, req/s, p50, p99, requests, failed, memory."""
    return browser.run(CELL + "?.innerText.split('\\t').map(t => t.trim())", version)


def test_models_and_versions_are_listed(browser, server):
    browser.open(server.url + "/ui/")
    browser.text("#state", "not ready: broken")
    names = browser.texts("#models .name")
    assert names == sorted(["broken", "colours", "double", "marked", "mlp", "negative", "pair", "pick", "sum", "words"])
    browser.one("#models a[href='#double']").click()
    assert browser.text("h2", "double") == "double"
    assert "y = factor · x" in browser.one(".facts").text and "team: vision" in browser.one(".facts").text
    assert cells(browser, "1")[:3] == ["1", "ready", "0 %"] and cells(browser, "2")[:3] == ["2", "ready", "100 %"]
    signature = browser.texts("[aria-label=Inputs] td"), browser.texts("[aria-label=Outputs] td")
    assert signature == (["x", "FP32", "? × 4"], ["y", "FP32", "? × 4"])
    browser.one("#models a[href='#broken']").click()
    browser.text("h2", "broken")
    assert "not an ONNX model" in browser.one(".reason").text
    assert not any(browser.run("return [...document.querySelectorAll('.try')].map(e => e.checkVisibility())"))


def test_the_filter_leaves_what_fits(browser, server):
    browser.open(server.url + "/ui/")
    browser.until("return document.querySelector('#models a')")
    browser.one("#filter").type("p")
    visible = "return [...document.querySelectorAll('#models li')].filter(e => e.checkVisibility()).map(e => e.innerText.trim())"
    assert [t.split("\n")[0] for t in browser.run(visible)] == ["mlp", "pair", "pick"]


def test_figures_move_when_requests_come(browser, server):
    browser.open(server.url + "/ui/#double")
    browser.text("h2", "double")
    before = int(browser.until(CELL + "?.cells[6].innerText", "2").replace("\u202f", ""))
    figure = "return document.querySelector('.figure').innerText"
    assert browser.run(figure) == "0" or float(browser.run(figure)) < 5
    for _ in range(30):
        server.infer("double", [1, 2, 3, 4], rows=4)
    browser.until(CELL + f"?.cells[6].innerText.replace('\u202f', '') === '{before + 30}'", "2")
    tiles = browser.texts(".tile")
    assert float(tiles[0].split("\n")[1]) >= 5  # 30 requests in 5 s at most
    assert tiles[1].split("\n")[1].endswith(("µs", "ms")) and "p99" in tiles[1]
    assert tiles[2].split("\n")[1] == "4"  # rows per call: the requests came one after the other
    heights = browser.run("return [...document.querySelectorAll('.columns i')].map(e => e.style.height)")
    assert heights[:4] == ["0%", "0%", "100%", "0%"]
    assert cells(browser, "2")[4].endswith(("µs", "ms")) and cells(browser, "1")[3] == "0"
    link = browser.text("#models a[href='#double']", "/s")
    assert float(link.split("\n")[-1].removesuffix("/s")) > 0


def test_failures_are_seen(browser, server):
    browser.open(server.url + "/ui/#pick")
    browser.text("h2", "pick")
    assert cells(browser, "1")[7] == "0"
    row = {"name": "index", "datatype": "INT64", "shape": [1], "data": [77]}
    assert server.ask("POST", "/v2/models/pick/infer", {"inputs": [row]})[0] >= 400
    browser.until(CELL + "?.cells[7].innerText === '1'", "1")
    assert "failed/s" in browser.text(".tile", "failed")


def test_markup_is_text(browser, server):
    browser.open(server.url + "/ui/#marked")
    browser.text("h2", "marked")
    assert MARKUP in browser.one(".facts").text and "<u>me</u>" in browser.one(".facts").text
    assert browser.texts("legend b") == ["<i>in</i>"]
    assert browser.texts("[aria-label=Outputs] td")[0] == "<script>1</script>"
    browser.one("textarea").type("1 -2")
    browser.one(".try .main").click()
    browser.text(".output", "<script>1</script>")
    assert (
        browser.run(
            "return document.querySelectorAll('article img, article i:not(.track i), article u, article script').length"
        )
        == 0
    )
    assert browser.run("return document.title") == "marked · fastinfer"
    browser.open(server.url + "/ui/#%3Cimg src=x onerror=alert(1)%3E")
    browser.text("h2", "broken")  # no such model: the first one
    browser.open(server.url + "/ui/#%E0%A4%A")
    browser.text("h2", "broken")


def test_inline_scripts_and_other_hosts_are_forbidden(browser, server):
    browser.open(server.url + "/ui/")
    browser.until("return document.querySelector('#models a')")
    browser.expected = ["Content Security Policy", "Trusted", "violates"]
    refused = browser.run("""
        const seen = [];
        document.addEventListener("securitypolicyviolation", (e) => seen.push(e.effectiveDirective));
        const script = document.createElement("script");
        try { script.textContent = "window.taken = 1"; document.body.append(script); } catch { seen.push("thrown"); }
        try { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.taken = 1'>"); } catch { seen.push("thrown"); }
        const other = await fetch("http://127.0.0.1:9/").then(() => "answered", () => "refused");
        await new Promise((done) => setTimeout(done));
        return [window.taken ?? null, other, seen];
    """)
    assert refused[:2] == [None, "refused"] and "connect-src" in refused[2] and "thrown" in refused[2]


def test_no_request_leaves_the_server(browser, server):
    browser.open(server.url + "/ui/#mlp")
    browser.text("h2", "mlp")
    browser.until(
        "return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/overview')).length > 1"
    )
    urls = browser.urls()
    assert {urlsplit(u).netloc for u in urls if not u.startswith("data:")} == {urlsplit(server.url).netloc}
    assert all(not urlsplit(u).query for u in urls)


def test_small_and_dark(browser, server):
    browser.window(400, 800, dark=True)
    browser.open(server.url + "/ui/#double")
    browser.text("h2", "double")
    assert browser.run("return document.documentElement.scrollWidth") <= 400
    assert not browser.run("return document.querySelector('#models').checkVisibility()")
    right = "return [...document.querySelectorAll('.acts button')].map(b => b.getBoundingClientRect().right)"
    buttons = browser.run(right)
    assert buttons and max(buttons) <= 400  # nothing has to be scrolled for
    dark = browser.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(dark) < 60
    browser.run("const s = document.querySelector('#choose'); s.value = 'mlp'; s.dispatchEvent(new Event('change'))")
    assert browser.text("h2", "mlp") == "mlp"


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out(browser, server, dark):
    """WCAG AA: 4.5 to 1 for every text on what is behind it."""
    browser.window(1280, 900, dark)
    browser.open(server.url + "/ui/#double")
    browser.text("h2", "double")
    browser.one("textarea").type("1 2 3")
    browser.one(".try .main").click()
    browser.text(".failure", "fit")
    weak = browser.run("""
        const parts = (c) => { const [r, g, b, a = 1] = c.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
        const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const behind = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor); if (c[3] > .99) return c; } return [255, 255, 255]; };
        const weak = [];
        for (const e of document.querySelectorAll("body *")) {
          if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
          const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
          if ((a + .05) / (b + .05) < 4.5) weak.push([e.innerText, (a + .05) / (b + .05)]);
        }
        return weak;
    """)
    assert weak == []


def test_everything_has_a_name_and_the_keyboard_reaches_it(browser, server):
    browser.open(server.url + "/ui/#double")
    browser.text("h2", "double")
    controls = browser.all("button, input:not([type=file]), select, textarea, a")
    shown = [
        c
        for c in controls
        if browser.run("return arguments[0].checkVisibility()", {"element-6066-11e4-a52e-4f735466cecf": c.key})
    ]
    assert len(shown) > 15 and all(c.label for c in shown)
    reached = []
    for _ in range(40):
        browser.keys(TAB)
        reached.append(
            browser.run(
                "const e = document.activeElement; return e.tagName + ' ' + (e.ariaLabel ?? e.innerText ?? '').trim()"
            )
        )
    for part in (
        "A mlp",
        "TEXTAREA Values of x",
        "BUTTON Random: x",
        "BUTTON Run",
        "BUTTON Promote version 1 of double",
    ):
        assert any(r.startswith(part) for r in reached), (part, reached)
    browser.run("document.querySelector('a[href=\"#mlp\"]').focus()")
    browser.keys(ENTER)
    browser.text("h2", "mlp")


def test_nothing_there_yet_and_a_server_that_goes(browser, tmp_path, make_server):
    root = tmp_path / "empty"
    root.mkdir()
    running = make_server(Config(root, http_port=0, grpc_port=None, grace=1))
    browser.open(running.url + "/ui/")
    assert "models push" in browser.text("#detail", "No models yet")
    put(root, "late", 1, scale(2))
    running.run(running.server.refresh())
    browser.text("h2", "late")
    stopping = threading.Thread(target=running.close)
    stopping.start()
    assert "Trying again" in browser.text("#trouble", "does not answer")
    assert browser.one("#state").text == "no answer"
    stopping.join(20)
    browser.expected = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "503"]


def test_requests_that_wait_are_seen(browser, tmp_path, make_server):
    put(tmp_path, "patient", 1, scale(2), "[batching]\nmax_delay = 3.0\n")
    running = make_server(Config(tmp_path, http_port=0, grpc_port=None, grace=5))
    browser.open(running.url + "/ui/")
    browser.text("h2", "patient")
    asking = [threading.Thread(target=running.infer, args=("patient", [1, 2, 3, 4])) for _ in range(3)]
    for thread in asking:
        thread.start()
    tile = "[...document.querySelectorAll('.tile')].at(-1).innerText"
    browser.until(f"return {tile}.includes('\\n3\\n')")
    _, _, metrics = running.ask("GET", "/metrics")
    assert b'nv_inference_pending_request_count{model="patient",version="1"} 3\n' in metrics
    for thread in asking:
        thread.join(10)
    browser.until(f"return {tile}.includes('\\n0\\n') && {tile}.includes('p99')")
    assert "p50" in browser.run(f"return {tile}")
