import { call, request } from "../../data/api";
import { complete, type Parameter, type State, type Told, type VersionInfo, type Versioned } from "./types";

export interface Preview {
  prompt: string | null;
  error: string | null;
  line: number | null;
  is_cut: boolean;
  source: "given" | "override" | "model";
  agent: string;
  agent_name: string | null;
  model: string | null;
}

export interface PreviewAsked {
  messages: readonly unknown[];
  tools?: readonly unknown[];
  add_generation_prompt: boolean;
  chat_template: string | null;
}

interface Whole extends VersionInfo { balancer_desired_state: Told }

let described: Promise<readonly Parameter[]> | null = null;

/** What can be set about inference; asked for once. */
export function parameters(): Promise<readonly Parameter[]> {
  described ??= call<{ parameters: Parameter[] }>("/api/v1/inference_parameters").then(
    (told) => told.parameters,
    (error: unknown) => { described = null; throw error; },
  );
  return described;
}

function at(pool: string, rest: string): string {
  return `/api/v1/pools/${encodeURIComponent(pool)}/${rest}`;
}

export async function readState(pool: string, known: readonly Parameter[]): Promise<Versioned> {
  const response = await request(at(pool, "balancer_desired_state"));
  return { version: versionOf(response), state: complete((await response.json()) as Told, known) };
}

/** Set the state if its version is still the one given. Returns the new one; throws `ApiError` 412 for another. */
export async function putState(pool: string, state: State, version: number): Promise<number> {
  return versionOf(await request(at(pool, "balancer_desired_state"), { method: "PUT", body: state, headers: { "if-match": tag(version) } }));
}

export async function readHistory(pool: string): Promise<{ current: number; history: VersionInfo[] }> {
  return call(at(pool, "history"));
}

export async function readVersion(pool: string, version: number, known: readonly Parameter[]): Promise<VersionInfo & Versioned> {
  const { balancer_desired_state, ...info } = await call<Whole>(at(pool, `history/${version}`));
  return { ...info, state: complete(balancer_desired_state, known) };
}

export async function rollBack(pool: string, version: number, current: number): Promise<number> {
  return versionOf(await request(at(pool, `history/${version}/rollback`), { method: "POST", headers: { "if-match": tag(current) } }));
}

export function preview(pool: string, asked: PreviewAsked, signal: AbortSignal): Promise<Preview> {
  return call(at(pool, "chat_template_preview"), { method: "POST", body: asked, signal });
}

/** The chat template in the file of an agent's model; null where it has none, or serves no model. */
export async function ownTemplate(agentId: string): Promise<string | null> {
  const told = await call<{ metadata: Record<string, string> } | null>(`/api/v1/agent/${encodeURIComponent(agentId)}/model_metadata`);
  return told?.metadata["tokenizer.chat_template"] ?? null;
}

function tag(version: number): string {
  return `"${version}"`;
}

function versionOf(response: Response): number {
  return Number(/"(\d+)"/.exec(response.headers.get("etag") ?? "")?.[1] ?? 0);
}
