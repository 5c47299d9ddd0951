/**
 * Markdown of a model as HTML that is safe to show, while it grows.
 *
 * What the model writes is never HTML: its tags are shown as text. DOMPurify stands behind that all the same.
 */
import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens } from "marked";

const TAGS = [
  ..."a blockquote br button code del div em h3 h4 h5 h6 hr input li ol p pre span strong table tbody td th thead tr ul".split(" "),
];
const ATTRIBUTES = ["align", "aria-label", "checked", "class", "disabled", "href", "rel", "start", "tabindex", "target", "title", "type"];
// DOMPurify looks for an address in every attribute that it is not told of.
const NO_ADDRESSES = ATTRIBUTES.filter((name) => name !== "href");
const SAFE_ADDRESS = /^(?:https?:|mailto:)/i;

const marked = new Marked({
  gfm: true,
  async: false,
  renderer: {
    html({ text }: Tokens.HTML | Tokens.Tag): string {
      return escaped(text);
    },
    heading({ tokens, depth }: Tokens.Heading): string {
      // A page has one h1, and the conversation its h2.
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    link({ href, tokens }: Tokens.Link): string {
      const text = this.parser.parseInline(tokens);
      return SAFE_ADDRESS.test(href) ? linked(href, text) : text;
    },
    image({ href, text }: Tokens.Image): string {
      // Loading it would tell a stranger's server that this answer was read.
      const name = escaped(text || href);
      return SAFE_ADDRESS.test(href) ? linked(href, name) : name;
    },
    code({ text, lang }: Tokens.Code): string {
      return codeBlock(text, lang ?? "");
    },
    table(token: Tokens.Table): string {
      const cells = (row: Tokens.TableCell[], tag: string) =>
        `<tr>${row.map((cell) => `<${tag}${cell.align ? ` align="${cell.align}"` : ""}>${this.parser.parseInline(cell.tokens)}</${tag}>`).join("")}</tr>`;
      const body = token.rows.map((row) => cells(row, "td")).join("");
      return `<div class="md-table" tabindex="0"><table><thead>${cells(token.header, "th")}</thead><tbody>${body}</tbody></table></div>`;
    },
  },
});

/** Whole Markdown. */
export function toHtml(text: string): string {
  return clean(marked.parser(marked.lexer(text)));
}

export type Tail = { kind: "html"; html: string } | { kind: "code"; language: string; text: string };

/**
 * Markdown that grows: blocks that are finished are rendered once, and only the last one again and again.
 *
 * So a text of n characters costs about n, not its square; `end` renders all of it once more, as references and lists
 * may mean something else when the end is known.
 */
export class GrowingMarkdown {
  private done = 0;
  private length = 0;
  readonly blocks: string[] = [];

  /** `text` is all there is so far. The result is the unfinished end. */
  grow(text: string): Tail {
    if (text.length < this.length) this.reset();
    this.length = text.length;
    const rest = text.slice(this.done);
    const code = openCode(rest);
    if (code !== null) return code;
    const tokens = marked.lexer(rest);
    const last = tokens.findLastIndex((token) => token.type !== "space");
    const finished = tokens.slice(0, Math.max(last, 0));
    const length = finished.reduce((sum, token) => sum + token.raw.length, 0);
    // What the lexer has changed (line ends) cannot be measured in it.
    if (length > 0 && rest.startsWith(finished.map((token) => token.raw).join(""))) {
      for (const token of finished) {
        if (token.type !== "space") this.blocks.push(render([token]));
      }
      this.done += length;
      return this.tail(tokens.slice(last));
    }
    return this.tail(tokens);
  }

  end(text: string): string {
    return toHtml(text);
  }

  private tail(tokens: Token[]): Tail {
    return { kind: "html", html: render(tokens) };
  }

  private reset(): void {
    this.done = 0;
    this.blocks.length = 0;
  }
}

/** A block of code that has not ended: it is shown as it comes, and never parsed. */
function openCode(rest: string): Tail | null {
  const begun = /^\n* {0,3}(`{3,}|~{3,})([^\n`]*)\n/.exec(rest);
  if (begun === null) return null;
  const fence = begun[1] as string;
  const text = rest.slice(begun[0].length);
  const isClosed = new RegExp(`^ {0,3}\\${fence[0]}{${fence.length},}[ \\t]*$`, "m").test(text);
  return isClosed ? null : { kind: "code", language: languageOf(begun[2] as string), text };
}

function render(tokens: Token[]): string {
  return clean(marked.parser(tokens));
}

function clean(html: string): string {
  return DOMPurify.sanitize(html, { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ATTRIBUTES, ALLOWED_URI_REGEXP: SAFE_ADDRESS, ADD_URI_SAFE_ATTR: NO_ADDRESSES, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false });
}

function codeBlock(text: string, info: string): string {
  const language = languageOf(info);
  const label = language ? `<span class="md-language">${escaped(language)}</span>` : "<span></span>";
  const copy = '<button type="button" class="md-copy" aria-label="Copy the code">Copy</button>';
  return `<div class="md-code"><div class="md-code-head">${label}${copy}</div><pre tabindex="0"><code>${escaped(text)}\n</code></pre></div>`;
}

export function languageOf(info: string): string {
  return /^[\w+#.-]{1,30}/.exec(info.trim())?.[0] ?? "";
}

function linked(href: string, text: string): string {
  return `<a href="${escaped(href)}" target="_blank" rel="noopener noreferrer">${text}</a>`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
