// What the tests do with OpenAI's npm client. Arguments: the base URL, a case of `cases`, and what it takes as JSON.
// Prints what came as JSON.
import OpenAI from "openai";
import { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, name, given] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const model = "default";

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const Fox = z.object({ name: z.string().max(20), legs: z.number().int().min(0).max(9) });

const cases = {
  async chatStream({ say }) {
    const messages = [{ role: "user", content: say }];
    const deltas = [];
    const stream = client.chat.completions
      .stream({ model, messages, stream_options: { include_usage: true } })
      .on("content.delta", ({ delta }) => deltas.push(delta));
    const completion = await stream.finalChatCompletion();
    const chunks = await collect(await client.chat.completions.create({ model, messages, stream: true }));
    const text = chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");
    return { deltas, completion, text };
  },

  async chatTools({ say }) {
    const asked = [];
    const look = {
      type: "function",
      function: {
        name: "look",
        parameters: { type: "object", properties: { at: { type: "string" } }, required: ["at"] },
        parse: JSON.parse,
        function: ({ at }) => {
          asked.push(at);
          return "[[now=a fox]]";
        },
      },
    };
    const runner = client.chat.completions.runTools({ model, messages: [{ role: "user", content: say }], tools: [look] });
    return { text: await runner.finalContent(), asked };
  },

  async responsesStream(body) {
    const stream = client.responses.stream({ model, ...body });
    const events = await collect(stream);
    const response = await stream.finalResponse();
    const plain = await collect(await client.responses.create({ model, ...body, stream: true }));
    return { events, text: response.output_text, status: response.status, plain };
  },

  async responsesResume({ id, after }) {
    const rest = await collect(await client.responses.retrieve(id, { stream: true, starting_after: after }));
    const stream = client.responses.stream({ response_id: id, starting_after: after });
    const replayed = await collect(stream);
    const response = await client.responses.retrieve(id);
    const items = await collect(client.responses.inputItems.list(id, { order: "asc" }));
    await client.responses.delete(id);
    const gone = await client.responses.retrieve(id).catch((error) => error.status);
    return { rest, replayed, text: response.output_text, items, gone };
  },

  async responsesParse({ ask }) {
    const text = { format: zodTextFormat(Fox, "fox") };
    const response = await client.responses.parse({ model, input: ask, text, max_output_tokens: 200 });
    return { parsed: response.output_parsed, status: response.status };
  },

  async chatParse({ ask }) {
    const messages = [{ role: "user", content: ask }];
    const response_format = zodResponseFormat(Fox, "fox");
    const completion = await client.chat.completions.parse({ model, messages, response_format, max_tokens: 200 });
    const [choice] = completion.choices;
    return { parsed: choice.message.parsed, reason: choice.finish_reason };
  },

  async completions({ prompt }) {
    const whole = await client.completions.create({ model, prompt, max_tokens: 200 });
    const chunks = await collect(await client.completions.create({ model, prompt, max_tokens: 200, stream: true }));
    const [choice] = whole.choices;
    return { text: choice.text, reason: choice.finish_reason, streamed: chunks.map((one) => one.choices[0]?.text ?? "").join("") };
  },

  async batches({ lines }) {
    const text = lines.map((line) => JSON.stringify(line)).join("\n");
    const file = await client.files.create({ file: await toFile(Buffer.from(text), "in.jsonl"), purpose: "batch" });
    const same = await (await client.files.content(file.id)).text();
    let batch = await client.batches.create({ input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" });
    while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      batch = await client.batches.retrieve(batch.id);
    }
    const output = await (await client.files.content(batch.output_file_id)).text();
    const listed = (await collect(client.batches.list({ limit: 1 }))).map((one) => one.id);
    const { deleted } = await client.files.delete(file.id);
    const answers = output.trim().split("\n").map((line) => JSON.parse(line));
    return { same: same === text, batch, answers, listed, deleted };
  },

  async embeddings({ texts }) {
    const whole = await client.embeddings.create({ model, input: texts });
    const plain = await client.embeddings.create({ model, input: texts, encoding_format: "float" });
    return { whole: whole.data.map((one) => one.embedding), plain: plain.data.map((one) => one.embedding) };
  },

  async error(body) {
    const error = await client.responses.create({ model, ...body }).catch((error) => error);
    return { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
  },
};

console.log(JSON.stringify(await cases[name](JSON.parse(given))));
