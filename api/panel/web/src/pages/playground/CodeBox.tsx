import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { json } from "@codemirror/lang-json";
import { HighlightStyle, bracketMatching, indentOnInput, syntaxHighlighting } from "@codemirror/language";
import { Compartment, EditorState } from "@codemirror/state";
import { EditorView, drawSelection, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useEffect, useRef } from "preact/hooks";

interface Props {
  label: string;
  text: string;
  onText: (text: string) => void;
  isBad: boolean;
  /** Its hint, and what is wrong with it: ids do not reach into the editor. */
  description: string;
}

const COLOURS = HighlightStyle.define([
  { tag: tags.propertyName, color: "var(--accent)" },
  { tag: tags.string, color: "var(--good)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--info)" },
]);

const THEME = EditorView.theme({
  "&": { backgroundColor: "var(--surface)", color: "var(--text)", border: "1px solid var(--line-strong)", borderRadius: "var(--radius-small)", maxHeight: "40vh" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "1px" },
  ".cm-scroller": { fontFamily: "var(--mono)", fontSize: "12.5px", minHeight: "140px", overflow: "auto" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-gutters": { backgroundColor: "var(--sunken)", color: "var(--muted)", border: "0" },
  ".cm-selectionBackground, &.cm-focused .cm-selectionBackground": { backgroundColor: "var(--accent-soft) !important" },
});

/** An editor for JSON. Tab leaves it, as in any field. */
export function CodeBox({ label, text, onText, isBad, description }: Props) {
  const root = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const attributes = useRef(new Compartment());
  const tell = useRef(onText);
  tell.current = onText;
  const told = () => EditorView.contentAttributes.of({ "aria-label": label, "aria-description": description, ...(isBad && { "aria-invalid": "true" }) });

  useEffect(() => {
    if (root.current === null) return;
    // Within a document CodeMirror makes style elements, which the content security policy forbids; in a shadow root it
    // adopts style sheets.
    const shadow = root.current.attachShadow({ mode: "open" });
    const editor = new EditorView({
      parent: shadow,
      root: shadow,
      state: EditorState.create({
        doc: text,
        extensions: [
          lineNumbers(),
          history(),
          drawSelection(),
          indentOnInput(),
          bracketMatching(),
          json(),
          syntaxHighlighting(COLOURS),
          THEME,
          keymap.of([...defaultKeymap, ...historyKeymap]),
          EditorView.lineWrapping,
          attributes.current.of(told()),
          EditorView.updateListener.of((update) => { if (update.docChanged) tell.current(update.state.doc.toString()); }),
        ],
      }),
    });
    view.current = editor;
    return () => editor.destroy();
  }, []);

  useEffect(() => {
    const editor = view.current;
    if (editor !== null && editor.state.doc.toString() !== text) editor.dispatch({ changes: { from: 0, to: editor.state.doc.length, insert: text } });
  }, [text]);
  useEffect(() => view.current?.dispatch({ effects: attributes.current.reconfigure(told()) }), [isBad, description]);
  return <div ref={root} class="pg-code" />;
}
