// SPDX-License-Identifier: Apache-2.0
// The server, as this page sees it. The key stays in this tab: sessionStorage, never a URL, never a cookie.

const ROOT = new URL("..", document.baseURI).pathname.replace(/\/$/, "");

export const key = {
  get: () => sessionStorage.getItem("fastinfer-key") ?? "",
  set: (value) => sessionStorage.setItem("fastinfer-key", value),
};

async function call(method, path, body) {
  const headers = key.get() ? { "X-API-Key": key.get() } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(ROOT + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  let data = {};
  try {
    data = text ? JSON.parse(text) : {};
  } catch {
    throw new Error(`the server answered ${response.status} with something that is not JSON`);
  }
  if (!response.ok) throw new Error(data.error ?? `the server answered ${response.status}`);
  return data;
}

const model = (name) => `/fastinfer/v1/models/${encodeURIComponent(name)}`;

export const overview = () => call("GET", "/fastinfer/v1/overview");
export const promote = (name, version, alias) => call("POST", `${model(name)}/promote`, { version, alias });
export const rollback = (name, alias) => call("POST", `${model(name)}/rollback`, { alias });
export const infer = (name, version, inputs) =>
  call("POST", `/v2/models/${encodeURIComponent(name)}/versions/${encodeURIComponent(version)}/infer`, { inputs });
