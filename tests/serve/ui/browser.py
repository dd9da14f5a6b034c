# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium over the W3C WebDriver protocol: the few commands that the tests need, over http.client."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element in the protocol's JSON
ENTER, TAB = "\ue007", "\ue004"
DRIVER = shutil.which("chromedriver")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "" if DRIVER and CHROMIUM else "no chromium and chromedriver on PATH (Debian: chromium, chromium-driver)"


class WebDriverError(Exception):
    pass


class Element:
    def __init__(self, browser: Browser, key: str) -> None:
        self._browser, self.key = browser, key

    def _do(self, method: str, path: str, body: dict | None = None):
        return self._browser.call(method, f"/element/{self.key}{path}", body)

    def click(self) -> None:
        self._do("POST", "/click", {})

    def type(self, text: str) -> None:
        """Into a file input: a path."""
        self._do("POST", "/value", {"text": text})

    def clear(self) -> None:
        self._do("POST", "/clear", {})

    @property
    def text(self) -> str:
        return self._do("GET", "/text")

    @property
    def label(self) -> str:
        """What a screen reader says: the computed accessible name."""
        return self._do("GET", "/computedlabel")


def _driver(tries: int = 5) -> tuple[subprocess.Popen, int]:
    """A driver and its port. It takes a port that is free for IPv6 and gives up when it is not for IPv4."""
    for _ in range(tries):
        process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in process.stdout:
            if said := re.search(r"successfully on port (\d+)", line):
                return process, int(said[1])
        process.wait(10)
        process.stdout.close()
    raise WebDriverError(f"chromedriver found no port in {tries} tries")


class Browser:
    """One Chromium with a profile of its own. Console messages and network requests are kept for `console` and `urls`."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="fastinfer-chromium-")
        self._session = ""
        self._process, port = _driver()
        try:
            self._connect(port)
        except BaseException:
            self.close()
            raise

    def _connect(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        # --no-sandbox: a container's root has no user namespaces.
        args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                "--disable-background-networking", "--no-first-run", f"--user-data-dir={self._profile.name}"]  # fmt: skip
        wanted = {"goog:chromeOptions": {"args": args, "binary": CHROMIUM},
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}  # fmt: skip
        made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"

    def _send(self, method: str, path: str, body: dict | None = None):
        self._http.request(method, path, None if body is None else json.dumps(body))
        value = json.loads(self._http.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise WebDriverError(f"{value['error']}: {value['message'][:400]}")
        return value

    def call(self, method: str, path: str, body: dict | None = None):
        return self._send(method, self._session + path, body)

    def close(self) -> None:
        try:
            if self._session:
                self.call("DELETE", "")
        finally:
            self._process.terminate()
            self._process.wait(10)
            self._process.stdout.close()
            self._profile.cleanup()

    # ---------------------------------------------------------------------------------------------------- what is seen

    def open(self, url: str) -> None:
        self.call("POST", "/url", {"url": url})

    def run(self, script: str, *arguments):
        """The value that a function body returns; promises are waited for."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def all(self, css: str) -> list[Element]:
        found = self.call("POST", "/elements", {"using": "css selector", "value": css})
        return [Element(self, f[ELEMENT]) for f in found]

    def one(self, css: str) -> Element:
        found = self.call("POST", "/element", {"using": "css selector", "value": css})
        return Element(self, found[ELEMENT])

    def texts(self, css: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())", css)

    def until(self, script: str, *arguments, seconds: float = 10):
        """What the script returns as soon as that is true; asked anew by the page after each change of it."""
        end = time.monotonic() + seconds
        while not (value := self.run(_CHANGED.replace("SCRIPT", script), list(arguments), 200)):
            if time.monotonic() > end:
                body = self.run("return document.body.innerText")
                raise AssertionError(f"never true in {seconds} s: {script}\nthe page says:\n{body}")
        return value

    def text(self, css: str, part: str, seconds: float = 10) -> str:
        """The text of the element, once it has `part` in it."""
        return self.until(
            "const e = document.querySelector(arguments[0]); return e?.innerText.includes(arguments[1]) && e.innerText",
            css, part, seconds=seconds,
        )  # fmt: skip

    def keys(self, text: str) -> None:
        """Typed into what has the focus."""
        presses = [{"type": t, "value": c} for c in text for t in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})

    # ---------------------------------------------------------------------------------------------------------- around

    def devtools(self, command: str, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def window(self, width: int, height: int, dark: bool = False) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def shot(self, path: Path, whole: bool = False) -> None:
        data = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def console(self) -> list[str]:
        """Errors and warnings since the last call."""
        rows = self.call("POST", "/se/log", {"type": "browser"})
        return [r["message"] for r in rows if r["level"] in ("SEVERE", "WARNING")]

    def urls(self) -> list[str]:
        """What pages have asked the network for since the last call."""
        rows = [json.loads(r["message"])["message"] for r in self.call("POST", "/se/log", {"type": "performance"})]
        return [r["params"]["request"]["url"] for r in rows if r["method"] == "Network.requestWillBeSent"]


# Runs the script now and after every change of the document, for so many milliseconds at most. (Its text is put in: the
# page's policy forbids eval.)
_CHANGED = """
const [given, limit] = arguments;
const ask = function () { SCRIPT };
return new Promise((done, fail) => {
  const end = (value) => { observer.disconnect(); clearTimeout(timer); done(value); };
  const look = () => { try { const value = ask.apply(null, given); if (value) end(value); } catch (e) { end(null); fail(e); } };
  const observer = new MutationObserver(look);
  const timer = setTimeout(() => end(null), limit);
  observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  look();
});
"""
