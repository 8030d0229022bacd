// What outlives a reload: the key and the conversation, in this tab's sessionStorage.

const KEY = "aril.key";
const CHAT = "aril.chat";
const VERSION = 1;
const EVERY = 250; // ms between two writes of an answer that comes

/** Returns the API key, "" if there is none. */
export function keptKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Keeps an API key; "" forgets it. */
export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Returns a conversation in which nothing was said. */
export function newChat() {
  return { version: VERSION, tenant: "", model: "", options: {}, turns: [] };
}

/** A conversation and when it is written. All of it is one item: its parts fit each other. */
export class Kept {
  #timer = null;
  #failed;

  /** `failed()` is called when there is no room for it. */
  constructor(failed) {
    this.#failed = failed;
    this.chat = newChat();
    try {
      const chat = JSON.parse(sessionStorage.getItem(CHAT));
      if (chat?.version === VERSION) this.chat = chat;
    } catch {
      // Not ours.
    }
    // The last moments at which a page may write, whatever becomes of it.
    addEventListener("pagehide", () => this.now());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.now();
    });
  }

  /** Writes before long. What is lost if the browser dies before that is read again. */
  soon() {
    this.#timer ??= setTimeout(() => this.now(), EVERY);
  }

  /** Writes. */
  now() {
    clearTimeout(this.#timer);
    this.#timer = null;
    try {
      sessionStorage.setItem(CHAT, JSON.stringify(this.chat));
    } catch {
      // What stands there is too old to go on from, but it is whole: an answer of it is read on.
      this.#failed();
    }
  }
}
