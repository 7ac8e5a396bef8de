// Cuts what a server sends into messages: server-sent events, and JSON lines.
// It reads nothing itself: it is given pieces of text, cut anywhere.

// An app of some thousand workers is about a megabyte.
const LONGEST = 32 * 1024 * 1024;

/** Cuts text into lines. */
class Lines {
  #rest = '';

  /** The lines that are complete with this piece. */
  push(piece) {
    // A line end of two characters may be cut between them: the second one alone would be an empty line.
    const text = (this.#rest + piece).replaceAll('\r\n', '\n');
    const lines = text.split('\n');
    this.#rest = lines.pop();
    if (this.#rest.length > LONGEST) throw new Error('a line without an end');
    return lines;
  }

  /** What came after the last line end. */
  end() {
    const rest = this.#rest;
    this.#rest = '';
    return rest === '' ? [] : [rest];
  }
}

/** Server-sent events, of which the data alone counts here. */
export class ServerEvents {
  #lines = new Lines();
  #data = [];

  /** The data of the messages that are complete with this piece. */
  push(piece) {
    const messages = [];
    for (const line of this.#lines.push(piece)) {
      if (line === '' && this.#data.length > 0) {
        messages.push(this.#data.join('\n'));
        this.#data = [];
      } else if (line.startsWith('data:')) {
        this.#data.push(line.slice(line[5] === ' ' ? 6 : 5));
      }
    }
    return messages;
  }

  /** A message that was cut off is none. */
  end() {
    return [];
  }
}

/** One JSON value a line. */
export class JsonLines {
  #lines = new Lines();

  /** The lines that are complete with this piece. */
  push(piece) {
    return this.#lines.push(piece).filter((line) => line !== '');
  }

  /** The last line may have no end. */
  end() {
    return this.#lines.end();
  }
}
