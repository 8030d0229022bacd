// Server-sent events out of a response's body, as the HTML standard reads them.

/**
 * Yields {id, data} for each event that is whole; `id` is undefined where an event has none. `heard`
 * is called whenever anything arrives, a comment that keeps the connection alive included.
 */
export async function* eventsOf(body, heard = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id;
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // what has no blank line behind it is not whole
      heard();
      // A line ends with \r\n, \n or \r; a \r at the very end may be half of the first.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { id, data: data.join("\n") };
          id = undefined;
          data = [];
          continue;
        }
        const [, name, text] = /^([^:]*)(?:: ?(.*))?$/su.exec(line);
        if (name === "data") data.push(text ?? "");
        else if (name === "id" && !text?.includes("\0")) id = text ?? "";
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
