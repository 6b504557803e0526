// The station's API: JSON in and out, errors after RFC 9457, a token asked for once.
import { ui } from "./ui.js";

const ROOT = "/api/v1";

/** A refusal in the server's words, or the want of an answer (status 0). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The station answered with status ${status}.`);
    this.status = status;
    this.body = body;
  }

  /** True where the same request may succeed later: nothing was refused. */
  get passing() { return this.status === 0 || this.status === 429 || this.status >= 500; }
}

let asking = null;

/** Asks for the station's token, once for all the requests that want it. */
function session() {
  asking ??= (async () => {
    for (let text = "This station is protected. Enter its token, as `hemascope serve` printed it."; ;) {
      const values = await ui.ask({
        heading: "Token", text, ok: "Continue",
        fields: [{ name: "token", label: "Token", type: "password", required: true }],
      });
      if (!values) return false;
      const response = await fetch(`${ROOT}/session`, sent("POST", { json: values }));
      if (response.ok) return true;
      text = "That is not the station's token. Check it and try again.";
    }
  })().finally(() => { asking = null; });
  return asking;
}

function sent(method, { json, form, headers = {}, signal }) {
  if (json !== undefined) headers = { "Content-Type": "application/json", ...headers };
  return { method, headers, signal, body: form ?? (json === undefined ? undefined : JSON.stringify(json)), cache: "no-cache" };
}

/** Asks the station; resolves to the response, or throws a `Problem`. */
async function request(method, path, options = {}) {
  const query = new URLSearchParams(Object.entries(options.query ?? {}).filter(([, v]) => v != null && v !== ""));
  const url = `${ROOT}${path}${query.size ? `?${query}` : ""}`;
  let response;
  try {
    response = await fetch(url, sent(method, options));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The station does not answer. Is `hemascope serve` still running?" });
  }
  if (response.status === 401 && await session()) return request(method, path, options);
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
  return response;
}

async function answer(method, path, options) {
  const response = await request(method, path, options);
  return response.status === 204 ? null : response.json();
}

export const get = (path, query, signal) => answer("GET", path, { query, signal });
export const post = (path, json, options) => answer("POST", path, { json, ...options });
export const put = (path, json) => answer("PUT", path, { json });
export const remove = (path) => answer("DELETE", path, {});
export const upload = (path, query, form) => answer("POST", path, { query, form });

/** Every item of a paged list; `each` sees the pages as they come. */
export async function all(path, query = {}, each = () => {}) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(path, { ...query, cursor });
    items.push(...page.items);
    each(page.items);
    cursor = page.next_cursor;
  } while (cursor);
  return items;
}

/** The lines of an application/x-ndjson answer, as they arrive. */
export async function* lines(path, json) {
  const response = await request("POST", path, { json });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const parts = (rest + (value ?? "")).split("\n");
      rest = done ? "" : parts.pop();
      for (const part of parts) if (part.trim()) yield JSON.parse(part);
      if (done) return;
    }
  } catch (error) {
    throw error instanceof Problem ? error : new Problem(0, { detail: "The connection to the station broke." });
  }
}

/** The address of a file or picture under the API. */
export const link = (path) => ROOT + path;
