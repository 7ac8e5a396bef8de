// The open connections of the chosen app as a table, asked for every two seconds while it is shown.
// There may be very many: it reads the first thousand.

import { $, arrange, element, Order, setAttribute, setFigure, setText } from './dom.js';
import { bytes, grouped, seconds, count, span } from './format.js';
import { ask, read, TokenNeeded } from './live.js';
import { JsonLines } from './stream.js';
import { plain } from './text.js';

const MOST = 1000;
const EVERY_MS = 2000;
const PATIENCE_MS = 15_000;

const text = (value) => plain(value, 100);
const time = (value) => (value >= 1 ? span(value * 1000) : seconds(value));

/** The columns: the field, its head, how it is shown, and whether it is a number. */
const COLUMNS = [
  ['client', 'client', text, false],
  ['local', 'connected to', text, false],
  ['worker', 'worker', grouped, true],
  ['state', 'state', text, false],
  ['age_seconds', 'age', time, true],
  ['idle_seconds', 'idle', time, true],
  ['received_bytes', 'in', bytes, true],
  ['sent_bytes', 'out', bytes, true],
  ['rtt_seconds', 'round trip', seconds, true],
  ['retransmitted_segments', 'sent again', grouped, true],
  ['queued_seconds', 'queued', seconds, true],
];

export class Connections {
  #key;
  #control;
  #order;
  #list = [];
  #rows = [];

  constructor() {
    this.#order = new Order('age_seconds', true, () => this.#show());
    const cells = COLUMNS.map(([field, head, , isNumber]) => {
      const cell = element('th', { scope: 'col', className: isNumber ? 'number' : '' });
      return this.#order.head(cell, field, head, isNumber);
    });
    $('connections').tHead.append(element('tr', {}, ...cells));
  }

  /** Shows those of this app, or of one worker; nothing to ask no more. `total` tells how many there are in all. */
  follow(word, worker, total) {
    this.total = total;
    const key =
      word === undefined
        ? undefined
        : `/v1/apps/${encodeURIComponent(word)}/connections${worker ? `?worker=${worker}` : ''}`;
    if (key === this.#key) return;
    this.#key = key;
    this.#control?.abort();
    this.#list = [];
    this.#show();
    setText($('connections-note'), '');
    if (key === undefined) return;
    this.#control = new AbortController();
    this.#run(key, this.#control.signal);
  }

  async #run(path, signal) {
    while (!signal.aborted) {
      if (!document.hidden) {
        try {
          await this.#once(path, signal);
        } catch (failure) {
          if (signal.aborted || failure instanceof TokenNeeded) return;
          setText($('connections-note'), 'The connections do not come; trying again.');
        }
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }

  async #once(path, signal) {
    const answer = await ask(path, { signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]) });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      setText(
        $('connections-note'),
        `Nothing to show: ${plain(problem.error?.message ?? `status ${answer.status}`)}.`,
      );
      return;
    }
    const list = [];
    let isCut = false;
    await read(answer, new JsonLines(), (line) => {
      isCut = list.length === MOST;
      if (!isCut) list.push(JSON.parse(line));
      return !isCut;
    });
    if (signal.aborted) return;
    this.#list = list;
    const all = this.total();
    const known = Number.isFinite(all) && all > list.length ? ` of ${grouped(all)}` : '';
    setText(
      $('connections-note'),
      isCut
        ? `${grouped(MOST)}${known} are shown, and sorted among themselves.`
        : list.length === 0
          ? 'None is open.'
          : `${count(list.length, 'connection is', 'connections are')} open.`,
    );
    this.#show();
  }

  #show() {
    const sorted = this.#order.sorted(this.#list, (connection, by) => connection[by]);
    while (this.#rows.length < sorted.length) this.#rows.push(makeRow());
    this.#rows.length = sorted.length;
    sorted.forEach((connection, at) => {
      const row = this.#rows[at];
      setAttribute(row.element, 'data-client', plain(connection.client, 100));
      COLUMNS.forEach(([field, , shown], column) => setFigure(row.cells[column], connection[field], shown));
    });
    arrange(
      $('connections').tBodies[0],
      this.#rows.map((row) => row.element),
    );
  }
}

const makeRow = () => {
  const cells = COLUMNS.map(([field, , , isNumber], at) =>
    element(at === 0 ? 'th' : 'td', {
      scope: at === 0 ? 'row' : undefined,
      'data-figure': field,
      className: isNumber ? 'number' : '',
    }),
  );
  return { element: element('tr', {}, ...cells), cells };
};
