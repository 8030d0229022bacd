/** The trace that a job belongs to: W3C Trace Context, as headers of its record. */

import { BadJob } from "./errors.js";
import type { Header } from "./transport.js";

// https://www.w3.org/TR/trace-context/: version, trace, parent, flags.
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;
const TRACESTATE = /^[\x20-\x7e]{1,512}$/;

/** The headers for what is given; none for nothing. Throws BadJob for what is no trace context. */
export function traceHeaders(traceparent?: string, tracestate?: string): Header[] {
  if (traceparent === undefined) {
    if (tracestate !== undefined) throw new BadJob("tracestate: says nothing without traceparent");
    return [];
  }
  if (!TRACEPARENT.test(traceparent)) {
    throw new BadJob("traceparent: not of the form 00-<32 hex>-<16 hex>-<2 hex>");
  }
  const headers: Header[] = [["traceparent", Buffer.from(traceparent)]];
  if (tracestate !== undefined) {
    if (!TRACESTATE.test(tracestate)) {
      throw new BadJob("tracestate: more than 512 characters, or not printable ASCII");
    }
    headers.push(["tracestate", Buffer.from(tracestate)]);
  }
  return headers;
}
