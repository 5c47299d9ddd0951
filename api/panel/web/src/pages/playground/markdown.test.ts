import { expect, test, vi } from "vitest";
import { Lexer } from "marked";
import { GrowingMarkdown, toHtml } from "./markdown";

function dom(html: string): HTMLElement {
  const element = document.createElement("div");
  element.innerHTML = html;
  return element;
}

const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "text <b onclick=alert(1)>bold</b>",
  "[a](javascript:alert(1))",
  "[a](data:text/html;base64,PHNjcmlwdD4=)",
  "![a](https://evil.example/pixel.png)",
  "<iframe src=//evil.example></iframe>",
  '<a href="x" style="position:fixed;inset:0">x</a>',
  "```html\n<script>alert(1)</script>\n```",
  "<svg><script>alert(1)</script></svg>",
  "# <style>*{display:none}</style>",
  "|<script>alert(1)</script>|\n|---|\n|<img src=x onerror=alert(1)>|",
];

test.each(HOSTILE)("%s does nothing", (text) => {
  const growing = new GrowingMarkdown();
  const tail = growing.grow(text);
  for (const html of [toHtml(text), [...growing.blocks, tail.kind === "html" ? tail.html : ""].join("")]) {
    const shown = dom(html);
    expect(shown.querySelector("script, img, iframe, style, svg, [style], [onclick], [onerror]")).toBeNull();
    for (const link of shown.querySelectorAll("a")) expect(link.protocol).toMatch(/^https?:$/);
  }
});

test("tags that a model writes are shown as text", () => {
  expect(dom(toHtml("<script>alert(1)</script>")).textContent).toContain("<script>alert(1)</script>");
});

test("links leave this page alone", () => {
  const link = dom(toHtml("[Paddler](https://example.com/?a=1&b=2)")).querySelector("a");
  expect([link?.href, link?.target, link?.rel]).toEqual(["https://example.com/?a=1&b=2", "_blank", "noopener noreferrer"]);
});

test("code has its language and a button to copy it", () => {
  const shown = dom(toHtml("```python\nprint(1)\n```"));
  expect(shown.querySelector(".md-language")?.textContent).toBe("python");
  expect(shown.querySelector("button.md-copy")?.textContent).toBe("Copy");
  expect(shown.querySelector("code")?.textContent).toBe("print(1)\n");
});

const LONG = `# Title

A paragraph with *words*, \`code\` and [a link](https://example.com).

- one
- two

  with more
    1. deep

> quoted
> twice

\`\`\`js
const a = 1;

# no title
\`\`\`

| a | b |
|---|:-:|
| 1 | 2 |

The end, after\\
a break.
`;

test("however it comes, the end is that of the whole", () => {
  for (const step of [1, 3, 17, LONG.length]) {
    const growing = new GrowingMarkdown();
    let shown = "";
    for (let at = step; at < LONG.length + step; at += step) {
      const tail = growing.grow(LONG.slice(0, at));
      shown = growing.blocks.join("") + (tail.kind === "html" ? tail.html : "");
    }
    expect(dom(shown).textContent?.replace(/\s+/g, " ")).toBe(dom(toHtml(LONG)).textContent?.replace(/\s+/g, " "));
    expect(growing.end(LONG)).toBe(toHtml(LONG));
  }
});

test("code that has not ended is shown as it comes", () => {
  expect(new GrowingMarkdown().grow("```js\nconst a")).toEqual({ kind: "code", language: "js", text: "const a" });
});

test("what is finished is parsed once: the work grows with the text, not with its square", () => {
  const paragraphs = Array.from({ length: 300 }, (_, at) => `Paragraph ${at} has some *words* of no meaning.\n\n`);
  const growing = new GrowingMarkdown();
  const lexed = vi.spyOn(Lexer.prototype, "lex");
  let text = "";
  for (const paragraph of paragraphs) growing.grow((text += paragraph));
  const read = lexed.mock.calls.reduce((sum, [source]) => sum + source.length, 0);
  expect(lexed).toHaveBeenCalledTimes(300);
  expect(read).toBeLessThan(3 * text.length);
  expect(growing.blocks).toHaveLength(299);
});

test("an answer that begins anew is drawn anew", () => {
  const growing = new GrowingMarkdown();
  growing.grow("one\n\ntwo\n\nthree");
  expect(growing.blocks).toHaveLength(2);
  growing.grow("other");
  expect(growing.blocks).toHaveLength(0);
});
