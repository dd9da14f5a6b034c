# SPDX-License-Identifier: Apache-2.0
"""Promoting, trying out and rolling back from the page; keys, and those who may not."""

import json

import pytest
from shown_models import ADMIN, BLIND, NARROW, READER


def version(server):
    """The version that answers who names none."""
    return server.infer("double", [1, 1, 1, 1], key=ADMIN)["model_version"]


def enter(browser, key):
    browser.until("return document.querySelector('#who:not([hidden])')")
    browser.one("#who").click()
    browser.one("#key").type(key)
    browser.one("dialog .main").click()
    browser.until("return !document.querySelector('dialog')")


def press(browser, label):
    browser.run(
        "[...document.querySelectorAll('main button')].find(b => (b.ariaLabel ?? b.innerText) === arguments[0] && b.checkVisibility()).click()",
        label,
    )


def confirm(browser):
    browser.one("dialog .main, dialog .danger").click()
    browser.until("return !document.querySelector('dialog')")


@pytest.fixture
def page(browser, guarded):
    def show(key):
        browser.expected = ["status of 401"]
        browser.open(guarded.url + "/ui/#double")
        browser.run("sessionStorage.clear()")
        browser.open("about:blank")
        browser.open(guarded.url + "/ui/#double")
        browser.text("#detail", "An API key is needed")
        enter(browser, key)
        return browser

    return show


def test_promote_try_and_roll_back(page, guarded):
    browser = page(ADMIN)
    browser.text("#who", "Key: operator")
    browser.text("h2", "double")
    press(browser, "Promote version 1 of double")
    assert "no version go to version 1" in browser.one("dialog").text
    confirm(browser)
    browser.text("tbody tr:first-child th", "stable")
    assert version(guarded) == "1"

    press(browser, "Canary version 2 of double")
    browser.run("document.querySelector('#share').value = 25")
    confirm(browser)
    browser.text(".split", "v2 · 25 %")
    asked = [version(guarded) for _ in range(40)]
    assert asked.count("2") == 10
    press(browser, "End canary")
    confirm(browser)
    browser.until(
        "return !document.querySelector('.split') && !document.querySelector('tbody').innerText.includes('canary')"
    )
    assert {version(guarded) for _ in range(8)} == {"1"}

    press(browser, "Promote version 2 of double")
    confirm(browser)
    browser.text("tbody tr:last-child th", "stable")
    assert version(guarded) == "2"
    press(browser, "Roll back")
    confirm(browser)
    browser.text("tbody tr:first-child th", "stable")
    assert version(guarded) == "1"
    assert guarded.server.registry.log.entries("double")[-1].by.startswith("operator at ")


def test_a_cancelled_question_changes_nothing(page, guarded):
    browser = page(ADMIN)
    browser.text("h2", "double")
    before = version(guarded)
    other = "2" if before == "1" else "1"
    press(browser, f"Promote version {other} of double")
    browser.keys("\ue00c")  # Escape
    browser.until("return !document.querySelector('dialog')")
    press(browser, f"Canary version {other} of double")
    browser.run("document.querySelector('#share').value = 250")
    browser.one("dialog .main").click()  # more than the form takes
    assert browser.all("dialog")
    browser.one("dialog button[type=button]").click()
    assert version(guarded) == before


def test_what_fails_is_said_in_the_question(page, guarded):
    browser = page(ADMIN)
    browser.expected.append("status of 4")
    browser.run("location.hash = 'other'")
    browser.text("h2", "other")
    press(browser, "Promote version 1 of other")
    confirm(browser)
    browser.until(
        "return [...document.querySelectorAll('main button')].some(b => b.innerText === 'Roll back' && b.checkVisibility())"
    )
    press(browser, "Roll back")
    browser.one("dialog .danger").click()
    assert browser.until("return document.querySelector('dialog .bad').innerText")
    browser.one("dialog button[type=button]").click()


@pytest.mark.parametrize("key", [READER, NARROW])
def test_who_may_not_change_sees_no_buttons_and_is_refused(page, guarded, key):
    browser = page(key)
    browser.text("h2", "double")
    words = "Promote", "Canary…", "Roll back", "End canary"
    assert not [t for t in browser.texts("main button") if t in words]
    names = ["double", "other"] if key == READER else ["double"]
    assert browser.texts("#models .name") == names
    before = version(guarded)
    for action, given in (("promote", {"version": "2"}), ("rollback", {}), ("canary", {"version": "2", "percent": 50})):
        status, _, body = guarded.ask("POST", f"/fastinfer/v1/models/double/{action}", given, key)
        assert status == 403 and "admin" in json.loads(body)["error"]
        assert guarded.ask("POST", f"/fastinfer/v1/models/double/{action}", given)[0] == 401
    assert version(guarded) == before
    browser.one("textarea").type("1 1 1 1")
    browser.one(".try .main").click()
    browser.text(".try [role=status]", "answered")


def test_the_key_stays_in_the_tab(page, guarded):
    browser = page(ADMIN)
    browser.text("h2", "double")
    browser.until("return performance.getEntriesByType('resource').length > 3")
    assert browser.run("return sessionStorage.length") == 1 and browser.run("return localStorage.length") == 0
    assert browser.run("return document.cookie") == "" and ADMIN not in browser.run("return location.href")
    assert not [u for u in browser.urls() if ADMIN in u]
    assert ADMIN not in browser.run("return document.documentElement.outerHTML")
    browser.one("#who").click()
    [b for b in browser.all("dialog button") if b.text == "Forget key"][0].click()
    browser.text("#detail", "An API key is needed")
    assert browser.run("return sessionStorage.length") == 0 and browser.texts("h2") == ["An API key is needed"]


def test_a_wrong_key(page):
    browser = page("fi_wrong")
    assert "not valid" in browser.text("#detail", "The key was not accepted")
    browser.expected.append("status of 403")
    enter(browser, BLIND)
    assert "lacks the scope 'read'" in browser.text("#detail", "This key may not see the models")
    browser.one("#who").click()
    browser.one("#key").type("schlüssel")
    browser.one("dialog .main").click()
    browser.text("dialog .bad", "ASCII")
    browser.one("dialog button[type=button]").click()
    enter(browser, READER)
    browser.text("h2", "double")


def test_a_server_without_keys_asks_for_none(browser, server):
    browser.open(server.url + "/ui/")
    browser.until("return document.querySelector('#models a')")
    assert not browser.run("return document.querySelector('#who').checkVisibility()")
