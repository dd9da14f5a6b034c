# SPDX-License-Identifier: Apache-2.0
"""Running a model from the page: what is typed, files, pictures; outputs are compared with numpy's."""

import json
import struct
import subprocess
import zlib

import numpy as np
import pytest

TABLE = "return [...document.querySelectorAll('.output tbody tr')].map(r => [...r.cells].slice(1).map(c => Number(c.innerText)))"


@pytest.fixture
def page(browser, server):
    def show(model, version=""):
        browser.open("about:blank")
        browser.open(f"{server.url}/ui/#{model}")
        browser.text("h2", model)
        browser.until("return document.querySelector('.try')?.checkVisibility()")
        if version:
            browser.run(
                "const s = document.querySelector('.try select'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
                version,
            )
        return browser

    return show


def run(browser):
    """Presses the button; the status that comes with an answer."""
    browser.one(".try .main").click()
    return browser.text(".try [role=status]", "answered")


def refused(browser):
    browser.one(".try .main").click()
    return browser.until("return document.querySelector('.failure')?.innerText")


def view(browser, name):
    browser.run(
        "[...document.querySelectorAll('.output .choice button')].find(b => b.innerText === arguments[0]).click()", name
    )


def read(browser, at=0):
    """An output as the page has it: (datatype, shape), and the file that it would save as an array."""
    made = browser.run("""
        const button = [...document.querySelectorAll('.output button')].filter(b => b.innerText === 'Save .npy')[arguments[0]];
        const real = [URL.createObjectURL, HTMLAnchorElement.prototype.click];
        let blob;
        URL.createObjectURL = (b) => { blob = b; return "#"; };
        HTMLAnchorElement.prototype.click = () => {};
        button.click();
        [URL.createObjectURL, HTMLAnchorElement.prototype.click] = real;
        return [...new Uint8Array(await blob.arrayBuffer())];
    """, at)  # fmt: skip
    import io

    return np.load(io.BytesIO(bytes(made)))


def png(path, pixels):
    """Writes uint8 [H, W, 3]."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    part = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )


def test_typed_values(page):
    browser = page("double")
    browser.one("textarea").type("1 2.5, -3 1e2\n5 6 7 8")
    assert "Version 2 answered" in run(browser)
    expected = np.float32([[3, 7.5, -9, 300], [15, 18, 21, 24]])
    assert np.array_equal(browser.run(TABLE), expected) and np.array_equal(read(browser), expected)
    view(browser, "Top 4")
    assert browser.texts(".top li")[0].split() == ["3", "300"]


def test_a_version_of_choice_and_nested_lists(page):
    browser = page("double", "1")
    browser.one("textarea").type("[[1, 2, 3, 4]]")
    assert "Version 1 answered" in run(browser)
    assert read(browser).tolist() == [[2, 4, 6, 8]]


def test_values_that_do_not_fit_are_told_and_can_be_mended(page):
    browser = page("double")
    for text, told in (
        ("", "no values are given"), ("1 2 3", "3 values do not fit ? × 4"), ("1 2 3 four", "four is not a number"),
        ("[[1, 2, 3, 4], [1, 2]]", "lists of 4 and of 2"), ("[[1, 2, 3, 4]", "not closed"), ("[1, [2]]", "side by side"),
    ):  # fmt: skip
        browser.one("textarea").clear()
        browser.one("textarea").type(text)
        assert told in refused(browser), text
        browser.run("document.querySelector('.result').replaceChildren()")
    browser.one("textarea").clear()
    browser.one("textarea").type("1 1 1 1")
    run(browser)
    assert browser.all(".failure") == []


def test_what_the_server_refuses_is_shown(page):
    browser = page("pick")
    browser.expected = ["status of 4", "status of 5"]
    browser.one("textarea").type("77")
    assert "77" in refused(browser) or "range" in refused(browser)
    browser.one("textarea").clear()
    browser.one("textarea").type("2 0")
    run(browser)
    assert browser.run(TABLE) == [[4, 5], [0, 1]]
    browser.one("textarea").clear()
    browser.one("textarea").type("1.5")
    assert "does not fit INT64" in refused(browser)


def test_several_inputs_and_outputs(page):
    browser = page("pair")
    for area, text in zip(browser.all("textarea"), ("1 2", "10 20"), strict=True):
        area.type(text)
    run(browser)
    assert browser.texts(".output h4") == ["sum", "difference"]
    assert read(browser, 0).tolist() == [[11, 22]] and read(browser, 1).tolist() == [[-9, -18]]


def test_texts(page):
    browser = page("words")
    browser.one("textarea").type("zwölf\n<b>bold</b>")
    run(browser)
    assert browser.texts(".output tbody td") == ["zwölf", "<b>bold</b>"]


def test_sequences_go_on(page):
    browser = page("sum")
    browser.one("textarea").type("2")
    for total in (2, 4, 6):
        run(browser)
        browser.until(f"return document.querySelector('.output tbody')?.innerText.trim().endsWith('{total}')")


def test_zeros_and_random_values(page):
    browser = page("mlp")
    browser.one("button[aria-label='Random: x']").click()
    run(browser)
    assert read(browser).shape == (1, 256) and len(browser.texts(".top li")) == 10
    best = np.sort(read(browser)[0])[::-1][:10]
    assert np.allclose([float(t.split()[1]) for t in browser.texts(".top li")], best, rtol=1e-4)
    browser = page("colours")
    browser.one("button[aria-label='Zeros: picture']").click()
    run(browser)
    assert read(browser).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("kind", ["npy", "fortran", "float64", "json", "request", "large"])
def test_files(page, tmp_path, kind):
    x = np.arange(2000 if kind == "large" else 8, dtype=np.float32).reshape(-1, 4) / 3
    path = tmp_path / ("x.npy" if kind in ("npy", "fortran", "float64", "large") else "x.json")
    if path.suffix == ".npy":
        np.save(path, np.asfortranarray(x) if kind == "fortran" else x.astype(np.float64) if kind == "float64" else x)
    elif kind == "json":
        path.write_text(json.dumps(x.tolist()))
    else:
        row = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
        path.write_text(json.dumps({"inputs": [row]}))
    browser = page("double")
    browser.one("input[type=file]").type(str(path))
    browser.until("return document.querySelector('textarea').value || !document.querySelector('.held').hidden")
    run(browser)
    assert np.array_equal(read(browser), x * np.float32(3))


def test_files_that_are_nothing(page, tmp_path):
    browser = page("double")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff{")
    np.save(tmp_path / "b.npy", np.zeros((2, 5), np.float32))
    np.save(tmp_path / "c.npy", np.array([None]), allow_pickle=True)
    (tmp_path / "d.json").write_text('{"inputs": {"y": 1}}')
    (tmp_path / "e.txt").write_bytes(b"\xff\xfe\x00")
    for name, told in (
        ("a.npy", "cut short"),
        ("b.npy", "do not fit"),
        ("c.npy", "no array"),
        ("d.json", "no values for x"),
        ("e.txt", ""),
    ):
        browser.one("input[type=file]").type(str(tmp_path / name))
        text = browser.until("return document.querySelector('fieldset > .bad').innerText")
        assert told in text, (name, text)
        browser.run("document.querySelector('fieldset > .bad').textContent = ''")


def test_a_picture_is_resized_and_normalised(page, tmp_path):
    colour = np.uint8([200, 100, 50])
    png(tmp_path / "p.png", np.full((31, 47, 3), colour))
    browser = page("colours")  # wants [n, 3, 6, 8]
    browser.one("input[type=file]").type(str(tmp_path / "p.png"))
    assert browser.until("const c = document.querySelector('.picture canvas'); return c && [c.width, c.height]") == [
        8,
        6,
    ]
    run(browser)
    assert np.allclose(read(browser)[0], colour / 255, atol=1e-3)
    chosen = "[...document.querySelectorAll('.options label')].find(l => l.innerText.startsWith(arguments[0])).querySelector('select')"
    choose = f"const s = {chosen}; s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    for norm, of in (
        ("signed", lambda v: v / 127.5 - 1), ("byte", lambda v: v),
        ("imagenet", lambda v: (v / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
    ):  # fmt: skip
        browser.run(choose, "Values", norm)
        run(browser)
        assert np.allclose(read(browser)[0], of(colour.astype(float)), rtol=1e-3), norm
    browser.run(choose, "Channels", "bgr")
    run(browser)
    assert np.allclose(read(browser)[0], of(colour.astype(float))[::-1], rtol=1e-3)


def test_layouts_sizes_and_pictures_as_outputs(page, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    png(tmp_path / "p.png", pixels)
    browser = page("negative")  # uint8 [n, h, w, 3], height and width free
    browser.one("input[type=file]").type(str(tmp_path / "p.png"))
    browser.until("return document.querySelector('.picture canvas')")
    size = "const i = document.querySelector(`input[aria-label=${arguments[0]}]`); i.value = arguments[1]; i.dispatchEvent(new Event('change'))"
    browser.run(size, "width", 20)
    browser.run(size, "height", 12)
    run(browser)
    assert np.array_equal(read(browser), 255 - pixels[None])
    drawn = browser.run("""
        const c = document.querySelector('.output canvas');
        return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]];
    """)
    assert drawn[:2] == [20, 12]
    assert np.array_equal(np.array(drawn[2], np.uint8).reshape(12, 20, 4)[..., :3], 255 - pixels)
    browser.run(
        "document.querySelector('.picture select').value = 'fit'; document.querySelector('.picture select').dispatchEvent(new Event('change'))"
    )
    browser.run(size, "width", 12)
    run(browser)
    bars = read(browser)[0]
    assert bars.shape == (12, 12, 3) and (bars[0] == 255).all() and not (bars[6] == 255).all()


def test_a_picture_that_is_none(page, tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG not at all")
    browser = page("colours")
    browser.one("input[type=file]").type(str(tmp_path / "p.png"))
    assert "no picture" in browser.text("fieldset > .bad", "p.png")


def test_the_command_does_the_same(page):
    browser = page("double")
    browser.one("textarea").type("1 2 3 nan")
    run(browser)
    command = browser.run("return document.querySelector('.result pre').textContent")
    assert command.startswith("curl http://127.0.0.1:")
    answer = json.loads(subprocess.run(["sh", "-c", command], capture_output=True, timeout=20, check=True).stdout)
    assert answer["outputs"][0]["data"] == [3, 6, 9, "NaN"]


def test_tensors_survive_the_wire(page):
    """Every datatype: what the page's own code makes of bytes, and bytes of it."""
    browser = page("double")
    half = np.float16([0, -0.0, 1, -2.5, 65504, 6e-8, 5.96e-8, 6.1e-5, 1e-4, np.inf, -np.inf, np.nan, 0.1, 2049 / 2048])
    got = browser.run("""
        const { joined, hold, split } = await import(new URL("tensors.js", document.baseURI));
        const out = [];
        for (const [datatype, values] of arguments[0]) {
          const held = hold(datatype, values);
          const { header, body } = joined([{ name: "t", datatype, shape: [values.length], values: held }]);
          out.push([...new Uint8Array(await body.arrayBuffer())].slice(header));
        }
        return out;
    """, [["FP16", [str(v) for v in half.tolist()]], ["INT64", ["-9223372036854775808", "9007199254740993"]],
          ["UINT64", ["18446744073709551615"]], ["BF16", ["1.00390625", "3.140625", "nan"]], ["BYTES", ["ä", ""]],
          ["BOOL", ["true", "0"]], ["INT8", ["-128"]]])  # fmt: skip
    assert np.array_equal(np.frombuffer(bytes(got[0]), np.float16), half, equal_nan=True)
    assert np.frombuffer(bytes(got[1]), np.int64).tolist() == [-(2**63), 2**53 + 1]
    assert np.frombuffer(bytes(got[2]), np.uint64).tolist() == [2**64 - 1]
    assert np.frombuffer(bytes(got[3]), np.uint16).tolist()[:2] == [0x3F80, 0x4049]  # 1.00390625 lies between: to even
    assert bytes(got[4]) == b"\x02\0\0\0\xc3\xa4\0\0\0\0" and got[5] == [1, 0] and got[6] == [128]
