import { Component, h, type FunctionComponent } from "preact";

/** Draws anew only for props that are other objects: Preact's own is in `preact/compat`, which weighs more than this. */
export function memo<Props extends object>(Content: FunctionComponent<Props>): FunctionComponent<Props> {
  class Memo extends Component<Props> {
    override shouldComponentUpdate(next: Readonly<Props>): boolean {
      const keys = Object.keys(next) as (keyof Props)[];
      return keys.some((key) => next[key] !== (this.props as Readonly<Props>)[key]);
    }
    override render() { return h(Content, this.props as Props); }
  }
  return Memo as unknown as FunctionComponent<Props>;
}
