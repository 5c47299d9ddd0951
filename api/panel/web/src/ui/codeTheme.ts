import { HighlightStyle } from "@codemirror/language";
import { EditorView } from "@codemirror/view";
import { tags } from "@lezer/highlight";

/** Of the panel's tokens, which reach into shadow roots: a change of the theme is theirs alone. */
export const THEME = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "var(--surface)", border: "1px solid var(--line-strong)", borderRadius: "var(--radius-small)", fontSize: "12.5px", minHeight: "var(--editor-min, 60px)", maxHeight: "var(--editor-max, 460px)" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "1px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55", overflow: "auto", borderRadius: "inherit", minHeight: "inherit" },
  ".cm-content": { caretColor: "var(--text)", padding: "8px 0", outline: "none" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-gutters": { backgroundColor: "var(--sunken)", color: "var(--muted)", border: "none", borderRight: "1px solid var(--line)" },
  ".cm-activeLine": { backgroundColor: "transparent", boxShadow: "inset 2px 0 0 var(--line-strong)" },
  ".cm-selectionBackground, &.cm-focused .cm-selectionBackground": { backgroundColor: "var(--accent-soft) !important" },
  ".cm-matchingBracket": { backgroundColor: "var(--accent-soft)", outline: "1px solid var(--accent)" },
  ".cm-wrong": { backgroundColor: "var(--bad-soft)", boxShadow: "inset 3px 0 0 var(--bad)" },
  ".cm-changedLine": { backgroundColor: "var(--good-soft) !important" },
  ".cm-changedText": { background: "none !important", textDecoration: "underline", textDecorationColor: "var(--good)" },
  ".cm-deletedChunk": { backgroundColor: "var(--bad-soft)", paddingLeft: "6px" },
  ".cm-deletedText, .cm-deletedChunk .cm-deletedText": { background: "none !important", textDecoration: "line-through", textDecorationColor: "var(--bad)" },
  ".cm-deletedLine, .cm-deletedLine del": { textDecoration: "none" },
  ".cm-changeGutter": { width: "3px", paddingLeft: "0" },
  ".cm-changedLineGutter": { backgroundColor: "var(--good)" },
  ".cm-deletedLineGutter": { backgroundColor: "var(--bad)" },
  ".cm-collapsedLines": { background: "var(--sunken)", color: "var(--muted)", padding: "2px 10px" },
});

export const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.controlKeyword, tags.operatorKeyword, tags.definitionKeyword], color: "var(--accent)", fontWeight: "600" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--good)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--warn)" },
  { tag: [tags.comment, tags.meta], color: "var(--muted)" },
  { tag: [tags.propertyName, tags.function(tags.variableName)], color: "var(--info)" },
  { tag: [tags.brace, tags.squareBracket, tags.paren, tags.bracket], color: "var(--muted)" },
]);
