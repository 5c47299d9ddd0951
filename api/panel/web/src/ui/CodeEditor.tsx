import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { jinja } from "@codemirror/lang-jinja";
import { json } from "@codemirror/lang-json";
import { bracketMatching, syntaxHighlighting } from "@codemirror/language";
import { unifiedMergeView } from "@codemirror/merge";
import { Annotation, EditorState, StateEffect, StateField, type Extension } from "@codemirror/state";
import { Decoration, drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers, type DecorationSet } from "@codemirror/view";
import { useEffect, useRef } from "preact/hooks";
import { COLOURS, THEME } from "./codeTheme";
import { Echoes } from "./echoes";

export type Language = "jinja" | "json" | "text";

interface Props {
  /** What a screen reader calls it. */
  label: string;
  value: string;
  language: Language;
  /** Read only without it. */
  onValue?: (value: string) => void;
  /** A line to be marked as wrong, counted from 1. */
  wrongLine?: number | null;
  /** The text that this one is compared with, line by line. */
  original?: string;
  /** Where the cursor stands in what this replaces, if that has the focus. */
  cursor?: number | null;
}

/** What is typed over a selection. Left to the browser, Chromium keeps the look of the old text by a style attribute, which
 * a strict content security policy forbids. */
const typesOver = EditorView.domEventHandlers({
  beforeinput(event, view) {
    if (!event.cancelable || event.inputType !== "insertText" || event.data === null || view.composing || view.state.readOnly || view.state.selection.main.empty) return false;
    view.dispatch(view.state.replaceSelection(event.data), { userEvent: "input.type", scrollIntoView: true });
    event.preventDefault();
    return true;
  },
});

/** On changes that its owner has made. */
const given = Annotation.define<true>();

const markLine = StateEffect.define<number | null>();
const marked = Decoration.line({ class: "cm-wrong" });

const wrongLines = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(found, transaction) {
    const last = transaction.effects.filter((effect) => effect.is(markLine)).at(-1);
    if (last === undefined) return found.map(transaction.changes);
    const { doc } = transaction.state;
    if (last.value === null || last.value < 1 || last.value > doc.lines) return Decoration.none;
    return Decoration.set([marked.range(doc.line(last.value).from)]);
  },
  provide: (field) => EditorView.decorations.from(field),
});

const LANGUAGES: Record<Language, () => Extension> = { jinja: () => jinja(), json: () => json(), text: () => [] };

/** CodeMirror, in a shadow root: there its styles are adopted sheets, which a strict content security policy allows. Tab
 * moves on, as everywhere on a page. Give it a `key` that changes with what it is about. */
export function CodeEditor({ label, value, language, onValue, wrongLine = null, original, cursor = null }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const echoes = useRef(new Echoes());
  const changed = useRef(onValue);
  changed.current = onValue;
  const readOnly = onValue === undefined;

  useEffect(() => {
    if (host.current === null) return;
    const parent = host.current.shadowRoot ?? host.current.attachShadow({ mode: "open" });
    const compared = original === undefined ? [] : [unifiedMergeView({ original, mergeControls: false, gutter: true, collapseUnchanged: { margin: 3, minSize: 8 } })];
    const attributes: Record<string, string> = { "aria-label": label, "aria-readonly": String(readOnly) };
    if (readOnly) attributes.tabindex = "0";
    const made = new EditorView({
      parent,
      root: parent,
      state: EditorState.create({
        doc: value,
        selection: { anchor: Math.min(cursor ?? 0, value.length) },
        extensions: [
          lineNumbers(),
          history(),
          drawSelection(),
          bracketMatching(),
          syntaxHighlighting(COLOURS),
          THEME,
          LANGUAGES[language](),
          wrongLines,
          typesOver,
          EditorView.lineWrapping,
          EditorView.contentAttributes.of(attributes),
          keymap.of([...defaultKeymap, ...historyKeymap]),
          readOnly ? [EditorState.readOnly.of(true), EditorView.editable.of(false)] : highlightActiveLine(),
          compared,
          EditorView.updateListener.of((update) => {
            if (!update.docChanged || update.transactions.some((one) => one.annotation(given))) return;
            const text = update.state.doc.toString();
            echoes.current.tell(text);
            changed.current?.(text);
          }),
        ],
      }),
    });
    view.current = made;
    if (cursor !== null) made.focus();
    return () => {
      view.current = null;
      made.destroy();
    };
  }, [label, language, readOnly, original]);

  useEffect(() => {
    const made = view.current;
    if (echoes.current.has(value) || made === null || made.state.doc.toString() === value) return;
    made.dispatch({ changes: { from: 0, to: made.state.doc.length, insert: value }, annotations: given.of(true) });
  }, [value]);

  useEffect(() => {
    view.current?.dispatch({ effects: markLine.of(wrongLine) });
  }, [wrongLine, value]);

  return <div ref={host} class="code-editor" data-language={language} />;
}
