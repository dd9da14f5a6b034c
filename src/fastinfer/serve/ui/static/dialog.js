// SPDX-License-Identifier: Apache-2.0
// Questions: a native dialog, so Escape, focus and the keyboard are the browser's.

import { element } from "./dom.js";

// body: nodes; act: is called on the confirming button, and what it throws is shown. Resolves to whether it was done.
export function ask({ title, body, confirm, danger = false, act, more = [] }) {
  return new Promise((resolve) => {
    let done = false;
    const error = element("p", { class: "bad", role: "alert" });
    const go = element("button", { class: danger ? "danger" : "main" }, confirm);
    const cancel = element("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const submit = async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        await act();
        done = true;
        dialog.close();
      } catch (problem) {
        error.textContent = problem.message;
      } finally {
        go.disabled = false;
      }
    };
    const head = element("h2", { id: "question" }, title);
    const form = element("form", { onsubmit: submit, autocomplete: "off" }, head, body, error, element("div", { class: "row end" }, more, cancel, go));
    const dialog = element("dialog", { "aria-labelledby": "question", onclose: () => { dialog.remove(); resolve(done); } }, form);
    document.body.append(dialog);
    dialog.showModal();
  });
}
