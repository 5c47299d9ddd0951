const MAX_TOLD = 200;

/** What an editor has told its owner and has not got back yet. An owner that sets its state a moment later gives back what
 * is older than what has been typed meanwhile: taken for a new text it would undo that, be told of, and come back again,
 * without an end. */
export class Echoes {
  private told: string[] = [];

  tell(text: string): void {
    this.told.push(text);
    if (this.told.length > MAX_TOLD) this.told.shift();
  }

  /** Whether `value` is one of those; it and the older ones are forgotten. What is no echo makes all of them void. */
  has(value: string): boolean {
    const at = this.told.lastIndexOf(value);
    this.told = at < 0 ? [] : this.told.slice(at + 1);
    return at >= 0;
  }
}
