import { useMemo } from "preact/hooks";
import { heatOf } from "./vectors";

/** The cosine of each two texts: a table first, whose cells have a colour for the eye. */
export function Matrix({ texts, matrix }: { texts: readonly string[]; matrix: readonly (readonly number[])[] }) {
  const heat = useMemo(() => heatOf(matrix), [matrix]);
  return (
    <div class="table-wrap" role="region" aria-label="Similarity of each two texts" tabIndex={0}>
      <table class="em-matrix">
        <caption class="sr-only">Cosine similarity, 1 for the same direction. Rows and columns are the texts.</caption>
        <thead>
          <tr>
            <td />
            {texts.map((text, at) => <th key={at} scope="col" title={text}><span class="sr-only">{text}</span><span aria-hidden="true">{at + 1}</span></th>)}
          </tr>
        </thead>
        <tbody>
          {texts.map((text, row) => (
            <tr key={row}>
              <th scope="row" title={text}><span class="em-name"><span class="muted" aria-hidden="true">{row + 1}</span><span class="clip">{text}</span></span></th>
              {texts.map((_, column) => {
                const value = matrix[row]?.[column] ?? 0;
                return <td key={column} class={row === column ? "em-self" : undefined} ref={(cell) => cell?.style.setProperty("--heat", `${Math.round(heat(value) * 42)}%`)}>{value.toFixed(2)}</td>;
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
