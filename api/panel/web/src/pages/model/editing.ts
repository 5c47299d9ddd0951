import { computed, signal } from "@preact/signals";
import { ApiError } from "../../data/api";
import { changesBetween, PREFIX } from "./changes";
import { parameters, putState, readState, readVersion } from "./client";
import { draftOf, readDraft, type Draft, type Errors } from "./draft";
import { merge, rebase, type Rebase, type Side } from "./rebase";
import type { Parameter, VersionInfo, Versioned } from "./types";

/** A version that somebody else has set while this form was open. */
export interface Newer extends Versioned, Rebase {
  /** When and by whom; null where the history no longer says. */
  info: VersionInfo | null;
}

const NOTHING: Errors = new Map();

/** The form of one pool: what was read, what is in it, and what has come in between. It outlives the page. */
export class Editing {
  readonly base = signal<Versioned | null>(null);
  readonly draft = signal<Draft | null>(null);
  readonly known = signal<readonly Parameter[]>([]);
  /** What the server has refused, by path, until that field is changed. */
  readonly refused = signal<Errors>(NOTHING);
  readonly newer = signal<Newer | null>(null);
  readonly trouble = signal<Error | null>(null);
  readonly read = computed(() => (this.draft.value === null ? null : readDraft(this.draft.value, this.known.value)));
  readonly errors = computed<Errors>(() => new Map([...this.refused.value, ...(this.read.value?.errors ?? NOTHING)]));
  readonly changes = computed(() => {
    const [base, read] = [this.base.value, this.read.value];
    return base === null || read === null ? [] : changesBetween(base.state, read.state, this.known.value);
  });
  /** Also while what is written cannot be read yet. */
  readonly isDirty = computed(() => this.changes.value.length > 0 || (this.read.value?.errors.size ?? 0) > 0);

  constructor(readonly pool: string) {}

  /** Read what is set, unless that was done before. What goes wrong is told by `trouble`. */
  async load(): Promise<void> {
    if (this.base.value !== null) return this.look();
    try {
      this.known.value = await parameters();
      this.take(await readState(this.pool, this.known.value));
      this.trouble.value = null;
    } catch (error) {
      this.trouble.value = error as Error;
    }
  }

  edit(part: Partial<Draft>): void {
    if (this.draft.value === null) return;
    this.draft.value = { ...this.draft.value, ...part };
    this.refused.value = NOTHING;
  }

  editParameter(name: string, value: Draft["parameters"][string]): void {
    if (this.draft.value !== null) this.edit({ parameters: { ...this.draft.value.parameters, [name]: value } });
  }

  discard(): void {
    if (this.newer.value !== null) return this.take(this.newer.value);
    if (this.base.value !== null) this.take(this.base.value);
  }

  /** Whether somebody else has set another version: taken over at once where nothing is being changed here. */
  async look(): Promise<void> {
    const base = this.base.value;
    if (base === null) return;
    const found = await readState(this.pool, this.known.value).catch(() => null);
    if (found === null || this.base.value !== base || found.version === base.version) return;
    if (this.isDirty.value) await this.hold(found);
    else this.take(found);
  }

  /** Set what the form says. False: somebody else was faster (`newer`), or the server refuses it (`errors`). Throws
   * `ApiError` for whatever else goes wrong. */
  async apply(): Promise<boolean> {
    const [base, read] = [this.base.value, this.read.value];
    if (base === null || read === null || read.errors.size > 0) return false;
    try {
      const version = await putState(this.pool, read.state, base.version);
      this.take({ version, state: read.state });
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 412) {
        const found = await readState(this.pool, this.known.value);
        await this.hold(found);
        return false;
      }
      if (error.param === null || error.status !== 400 && error.status !== 409) throw error;
      this.refused.value = new Map([[error.param, error.message]]);
      return false;
    }
  }

  /** Go on from the newer version, with the changes of this form on top of it. */
  goOn(picks: ReadonlyMap<string, Side>): void {
    const [base, draft, read, newer] = [this.base.value, this.draft.value, this.read.value, this.newer.value];
    if (base === null || draft === null || read === null || newer === null) return;
    const made = draftOf(merge(base.state, read.state, newer.state, picks), this.known.value);
    const unread = Object.entries(draft.parameters).filter(([name]) => read.errors.has(PREFIX + name));
    this.take({ version: newer.version, state: newer.state });
    this.draft.value = { ...made, parameters: { ...made.parameters, ...Object.fromEntries(unread) } };
  }

  /** Of the newer version, nothing of this form. */
  takeTheirs(): void {
    if (this.newer.value !== null) this.take(this.newer.value);
  }

  private async hold(found: Versioned): Promise<void> {
    const [base, read] = [this.base.value, this.read.value];
    if (base === null || read === null) return;
    const info = await readVersion(this.pool, found.version, this.known.value).catch(() => null);
    this.newer.value = { ...found, ...rebase(base.state, read.state, found.state), info };
  }

  private take({ version, state }: Versioned): void {
    this.base.value = { version, state };
    this.draft.value = draftOf(state, this.known.value);
    this.refused.value = NOTHING;
    this.newer.value = null;
  }
}

const open = new Map<string, Editing>();

/** The form of a pool: the same until the panel is closed, so that a look at another page loses nothing. */
export function editingOf(pool: string): Editing {
  let found = open.get(pool);
  if (found === undefined) open.set(pool, (found = new Editing(pool)));
  return found;
}

/** Whether any form has something that is not set. */
export function hasUnsaved(): boolean {
  return [...open.values()].some((one) => one.isDirty.value);
}

