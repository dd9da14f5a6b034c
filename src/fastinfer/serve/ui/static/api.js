// SPDX-License-Identifier: Apache-2.0
// The server, as this page sees it. The key stays in this tab: sessionStorage, never a URL, never a cookie.

import { joined, split } from "./tensors.js";

const ROOT = new URL("..", document.baseURI).pathname.replace(/\/$/, "");
const STORED = "fastinfer-key";

export const key = {
  get: () => sessionStorage.getItem(STORED) ?? "",
  set: (value) => (value ? sessionStorage.setItem(STORED, value) : sessionStorage.removeItem(STORED)),
};

// status: 0 where there was no answer at all.
export class ServerError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function send(method, path, headers, body) {
  const own = key.get() ? { Authorization: `Bearer ${key.get()}` } : {}; // a key or a token: the server takes both so
  let response;
  try {
    response = await fetch(ROOT + path, { method, headers: { ...headers, ...own }, body, credentials: "omit", redirect: "error" });
  } catch {
    throw new ServerError(0, "The server does not answer");
  }
  if (response.ok) return response;
  let text = "";
  try {
    text = (await response.json()).error;
  } catch {
    // a proxy's page, perhaps
  }
  throw new ServerError(response.status, text || `the server answered ${response.status}`);
}

const part = encodeURIComponent;

export async function overview() {
  return (await send("GET", "/fastinfer/v1/overview", {})).json();
}

// action: promote, canary or rollback.
export async function change(model, action, given) {
  const path = `/fastinfer/v1/models/${part(model)}/${action}`;
  return (await send("POST", path, { "Content-Type": "application/json" }, JSON.stringify(given))).json();
}

export const inferPath = (model, version) => `${ROOT}/v2/models/${part(model)}${version ? `/versions/${part(version)}` : ""}/infer`;

// inputs: tensors (tensors.js). Returns {version, outputs: tensors}. Binary both ways: exact, and half floats have no JSON.
export async function infer(model, version, inputs, parameters) {
  const { header, body } = joined(inputs, parameters);
  const fields = { "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": String(header) };
  const response = await send("POST", inferPath(model, version).slice(ROOT.length), fields, body);
  const length = Number(response.headers.get("Inference-Header-Content-Length") ?? 0);
  return split(await response.arrayBuffer(), length);
}
