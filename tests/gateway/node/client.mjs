// OpenAI's client for Node against a gateway: prints what it got as one JSON object.
//   node client.mjs <base url> <key> <key with limits>
import OpenAI from "openai";

const [baseURL, apiKey, slowKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, timeout: 120_000 });
const messages = [{ role: "user", content: "what is the capital of France?" }];
const exact = { model: "aril", messages, temperature: 0, max_tokens: 12 };
const told = {};

function of(error) {
  return {
    kind: error?.constructor?.name,
    status: error?.status,
    code: error?.code,
    param: error?.param,
    body: error?.error,
  };
}

async function refused(work) {
  try {
    await work();
  } catch (error) {
    return of(error);
  }
  return { kind: "none" };
}

async function gather(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const text = chunks.map((each) => each.choices[0]?.delta?.content ?? "").join("");
  return { chunks, text };
}

const whole = await client.chat.completions.create(exact);
told.whole = whole.choices[0].message.content;
const options = { include_usage: true };
const streamed = await gather(
  await client.chat.completions.create({ ...exact, stream: true, stream_options: options }),
);
told.streamed = streamed.text;
told.usage = [whole.usage, streamed.chunks.at(-1).usage];

const several = await client.chat.completions.create({
  ...exact,
  temperature: 1,
  seed: 3,
  n: 2,
  logprobs: true,
  top_logprobs: 2,
});
told.rows = several.choices.map((each) => each.logprobs.content.length);
told.stopped = (
  await client.chat.completions.create({ ...exact, stop: [told.whole.slice(4, 6)] })
).choices[0].message.content;

const schema = {
  type: "object",
  properties: { answer: { enum: ["yes", "no"] } },
  required: ["answer"],
  additionalProperties: false,
};
const formed = await client.chat.completions.create({
  ...exact,
  max_tokens: 300,
  response_format: { type: "json_schema", json_schema: { name: "a", schema, strict: true } },
  tools: [{ type: "function", function: { name: "f", parameters: schema } }],
});
told.formed = JSON.parse(formed.choices[0].message.content);

told.models = [];
for await (const model of client.models.list()) told.models.push(model.id);

told.unknown = await refused(() => client.chat.completions.create({ ...exact, model: "pirate" }));
told.toolong = await refused(() =>
  client.chat.completions.create({ ...exact, max_tokens: 100_000_000 }),
);
const stranger = new OpenAI({ baseURL, apiKey: "wrong" });
told.stranger = await refused(() => stranger.models.list());
const slow = new OpenAI({ baseURL, apiKey: slowKey, maxRetries: 0 });
told.limited = await refused(async () => {
  for (let at = 0; at < 3; at += 1) await slow.models.list();
});

const headers = { "Idempotency-Key": `node-${Date.now()}` };
const asked = { ...exact, temperature: 1 };
const first = await client.chat.completions.create(asked, { headers });
const again = await client.chat.completions.create(asked, { headers });
told.retried = [first.id === again.id, first.choices[0].message, again.choices[0].message];

const long = { ...exact, max_tokens: 400, ignore_eos: true, stream: true };
const left = await client.chat.completions.create(long);
let leftId;
for await (const chunk of left) {
  leftId = chunk.id;
  break; // hangs up
}
told.left = await refused(() =>
  client.chat.completions.retrieve(leftId, {}, { maxRetries: 0, timeout: 60_000 }),
);
const ended = await client.chat.completions.create(long);
told.ended = await refused(async () => {
  let asked = false;
  for await (const chunk of ended) {
    if (asked) continue;
    asked = true;
    await client.post(`/chat/completions/${chunk.id}/cancel`);
  }
});
told.timeout = await refused(() =>
  client.chat.completions.create({ ...long, stream: false }, { timeout: 300, maxRetries: 0 }),
);
console.log(JSON.stringify(told));
