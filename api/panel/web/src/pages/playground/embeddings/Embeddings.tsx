import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { request } from "../../../data/api";
import { count, duration } from "../../../data/format";
import { Alert } from "../../../ui/Alert";
import { Button } from "../../../ui/Button";
import { Empty } from "../../../ui/Empty";
import { SelectField, TextArea } from "../../../ui/Field";
import { type Column, Table } from "../../../ui/Table";
import { save } from "../download";
import { toldOf } from "../errors";
import { canEmbed, models, useModels } from "../models";
import type { Told } from "../model";
import { Matrix } from "./Matrix";
import { MAX_SHOWN, MAX_TEXTS, type Pair, asCsv, cosines, length, pairsOf, textsOf } from "./vectors";
import { ApiError } from "../../../data/api";

const EXAMPLE = "A cat sits on the mat.\nThe kitten rests on the rug.\nShares fell on Tuesday.\nThe stock market went down.";
const FORMS = [["l2", "l2: length 1"], ["none", "none: as the model makes them"], ["rms_norm", "rms_norm: root of the mean square 1"]] as const;

interface Result {
  texts: string[];
  vectors: number[][];
  tokens: number;
  tookMs: number;
  agent: string | null;
}

interface EmbeddingList {
  data: { index: number; embedding: number[] }[];
  usage: { prompt_tokens: number };
}

export function Embeddings() {
  const [field, setField] = useState(EXAMPLE);
  const [chosen, setChosen] = useState("");
  const [normalization, setNormalization] = useState("l2");
  const [result, setResult] = useState<Result | null>(null);
  const [error, setError] = useState<Told | null>(null);
  const running = useRef<AbortController | null>(null);
  const [isBusy, setBusy] = useState(false);
  useModels((failure) => setError(toldOfFailure(failure)));
  useEffect(() => () => running.current?.abort(), []);

  const able = (models.value ?? []).filter(canEmbed);
  const model = able.some((one) => one.id === chosen) ? chosen : (able[0]?.id ?? "");
  const texts = textsOf(field);
  const fault = texts.length > MAX_TEXTS ? `${texts.length} lines: at most ${MAX_TEXTS} here.` : null;
  const embed = async () => {
    const controller = new AbortController();
    running.current = controller;
    setBusy(true);
    setError(null);
    try {
      setResult(await ask(model, texts, normalization, controller.signal));
    } catch (failure) {
      if (!controller.signal.aborted) setError(toldOfFailure(failure));
    }
    setBusy(false);
  };
  return (
    <div class="em">
      <form class="card stack" onSubmit={(event) => { event.preventDefault(); void embed(); }}>
        <TextArea label="Texts, one in each line" rows={8} value={field} onValue={setField} error={fault} hint="Each becomes a vector; vectors of texts that mean alike point in one direction." />
        <SelectField label="Model" value={model} onValue={setChosen} options={able.length ? able.map((one) => [one.id, one.id] as const) : [["", "No model that embeds"]]} hint={models.value !== null && able.length === 0 ? "Start an agent with an embedding model or a chat model." : undefined} />
        <SelectField label="Normalization" value={normalization} onValue={setNormalization} options={FORMS} />
        <div class="row">
          <Button type="submit" kind="primary" busy={isBusy} disabled={texts.length === 0 || fault !== null || model === ""}>Embed {texts.length === 1 ? "1 text" : `${texts.length} texts`}</Button>
          {isBusy && <Button onClick={() => running.current?.abort()}>Stop</Button>}
        </div>
        {error && <Alert tone="bad"><p><strong>{error.message}</strong></p>{error.remedy && <p>{error.remedy}</p>}</Alert>}
      </form>
      <section class="card stack" aria-label="Result" aria-busy={isBusy ? "true" : undefined}>
        {result === null ? <Empty title="Nothing embedded yet"><p>The vectors and how alike each two texts are come here.</p></Empty> : <Shown result={result} />}
      </section>
    </div>
  );
}

function Shown({ result }: { result: Result }) {
  const { texts, vectors, tokens, tookMs, agent } = result;
  const matrix = useMemo(() => cosines(vectors), [vectors]);
  const pairs = useMemo(() => pairsOf(matrix, 20), [matrix]);
  const size = vectors[0]?.length ?? 0;
  const heads = Array.from({ length: size }, (_, at) => String(at));
  const saveJson = () => save("embeddings.json", "application/json", `${JSON.stringify({ texts, vectors, cosines: matrix })}\n`);
  return (
    <>
      <div class="spread">
        <p role="status">{texts.length === 1 ? "1 vector" : `${count(texts.length)} vectors`} of {count(size)} numbers, {count(tokens)} tokens, {duration(tookMs)}{agent && `, by ${agent}`}</p>
        <div class="row">
          <Button small onClick={saveJson}>Download JSON</Button>
          <Button small onClick={() => save("embeddings.csv", "text/csv", asCsv(texts, vectors, heads))}>Vectors as CSV</Button>
          <Button small onClick={() => save("similarity.csv", "text/csv", asCsv(texts, matrix, texts))}>Matrix as CSV</Button>
        </div>
      </div>
      <h2>How alike</h2>
      {texts.length > MAX_SHOWN ? <p class="muted">{texts.length} texts are too many for a table; the most alike are below, and all are in the files.</p> : <Matrix texts={texts} matrix={matrix} />}
      {pairs.length > 0 && (
        <details open={texts.length > MAX_SHOWN}>
          <summary>The most alike</summary>
          <Table label="The most alike" columns={pairColumns(texts)} rows={pairs} rowKey={(pair) => `${pair.one}-${pair.other}`} />
        </details>
      )}
      <details>
        <summary>Vectors</summary>
        <ol class="em-vectors">
          {texts.slice(0, MAX_SHOWN).map((text, at) => (
            <li key={at}>
              <span class="clip" title={text}>{text}</span> <span class="muted small">length {length(vectors[at] ?? []).toFixed(3)}</span>
              <pre tabIndex={0} aria-label={`Vector of ${text}`}>[{(vectors[at] ?? []).slice(0, 8).map((value) => value.toFixed(4)).join(", ")}{size > 8 && ", …"}]</pre>
            </li>
          ))}
        </ol>
      </details>
    </>
  );
}

function pairColumns(texts: readonly string[]): readonly Column<Pair>[] {
  return [
    { id: "cosine", head: "Cosine", right: true, cell: (pair) => pair.cosine.toFixed(4) },
    { id: "one", head: "Text", cell: (pair) => texts[pair.one] },
    { id: "other", head: "and", cell: (pair) => texts[pair.other] },
  ];
}

async function ask(model: string, input: string[], normalization: string, signal: AbortSignal): Promise<Result> {
  const began = performance.now();
  const response = await request("/v1/embeddings", { method: "POST", body: { model, input, normalization }, signal });
  const { data, usage } = (await response.json()) as EmbeddingList;
  const vectors = data.sort((one, other) => one.index - other.index).map((one) => one.embedding);
  return { texts: input, vectors, tokens: usage.prompt_tokens, tookMs: performance.now() - began, agent: response.headers.get("x-paddler-agent") };
}

function toldOfFailure(failure: unknown): Told {
  if (!(failure instanceof ApiError)) throw failure;
  return toldOf({ error: { message: failure.message, code: failure.code ?? (failure.status === 0 ? "offline" : ""), param: failure.param } }, failure.status, failure.retryAfter);
}
