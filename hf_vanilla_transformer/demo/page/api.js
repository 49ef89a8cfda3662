/** Calls of Gradio's queue. A call whose answer nobody waits for any more is never shown. */

const WRONG = "The page got no answer that it can read. Is the server still running?";
const FULL = "Too many questions are waiting for the server already. Try again in a moment.";

/** Calls a function of the API with its arguments in order; returns its result, or throws an Error with a sentence. */
export async function call(name, args) {
  let text, isFull = false;
  try {
    const asked = await fetch("gradio_api/call/" + name, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ data: args }),
    });
    isFull = asked.status === 503;
    if (!asked.ok) throw new Error();
    const { event_id: id } = await asked.json();
    text = await (await fetch("gradio_api/call/" + name + "/" + encodeURIComponent(id))).text();
  } catch {
    throw new Error(isFull ? FULL : WRONG);
  }
  const result = read(text);
  if (result.error !== undefined) throw new Error(sentence(result.error));
  return result;
}

/** The result among server-sent events. */
function read(text) {
  for (const block of text.split("\n\n")) {
    const event = /^event: (.*)$/m.exec(block)?.[1];
    const data = /^data: (.*)$/m.exec(block)?.[1];
    if (event === "complete") return JSON.parse(data)[0];
    if (event === "error") throw new Error("The server could not answer; its log says why. Try another text.");
  }
  throw new Error(WRONG);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

/**
 * Makes a function of which one call at a time is under way, and of those that come meanwhile only the last is made.
 * `work` returns what to show; `show` shows it, or `fail` an Error, unless something newer was asked for. Both are told
 * what was asked for, too.
 */
export function latest(work, show, fail) {
  let running = false, waiting = null, asked = 0;
  return async function ask(...args) {
    asked += 1;
    if (running) { waiting = args; return; }
    running = true;
    const mine = asked;
    try {
      const result = await work(...args);
      if (mine === asked) show(result, ...args);
    } catch (error) {
      if (mine === asked) fail(error, ...args);
    } finally {
      running = false;
      if (waiting) { const next = waiting; waiting = null; asked -= 1; ask(...next); }
    }
  };
}

/** Calls a function when it was not asked for so many milliseconds; `cancel()` has it not called after all. */
export function debounced(work, milliseconds) {
  let timer = 0;
  const ask = (...args) => { clearTimeout(timer); timer = setTimeout(() => work(...args), milliseconds); };
  return Object.assign(ask, { cancel: () => clearTimeout(timer) });
}
