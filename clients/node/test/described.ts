import type { ReaderEvent } from "../dist/reader.js";

/** An event as the vectors write it. */
export function described(event: ReaderEvent): unknown {
  switch (event.type) {
    case "tokens":
      return { tokens: { index: event.index, ids: event.ids, text: event.text } };
    case "reset":
      return { reset: { withdrawn: event.withdrawn } };
    case "done":
      return { done: { index: event.index, text: event.text } };
    case "error":
      return { error: { index: event.index, code: event.code } };
  }
}
