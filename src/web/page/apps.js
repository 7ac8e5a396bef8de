// The table of apps: a row each, for those that run and those that do not.
// It chooses nothing itself: whoever clicks a row is told to `choose`.

import { $, arrange, element, setAttribute, setFigure, setState, setText } from './dom.js';
import { lengthOf } from './figures.js';
import { bytes, grouped, percent, rate, seconds } from './format.js';
import { online, restarts, stateOf, wordOf } from './generations.js';
import { drawSpark } from './paint.js';
import { isKept } from './place.js';
import { plain } from './text.js';

/** The columns after name, state and workers, in their order. */
const FIGURES = [
  ['connections', rate, ''],
  ['spark', undefined, 'c-spark'],
  ['wait', seconds, 'c-wait'],
  ['queued', grouped, 'c-queued'],
  ['open', grouped, 'c-open'],
  ['cpu', percent, 'c-cpu'],
  ['memory', bytes, 'c-memory'],
  ['restarts', grouped, 'c-restarts'],
];

export class Apps {
  #rows = new Map();
  #choose;
  #sight;

  constructor(choose) {
    this.#choose = choose;
    this.#sight = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) target.row.isInSight = isIntersecting;
    });
    const table = $('apps');
    table.addEventListener('click', (event) => this.#clicked(event));
    table.addEventListener('keydown', (event) => this.#moved(event));
  }

  #clicked(event) {
    const row = event.target.closest('tbody tr');
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.#choose(row.row.choice);
  }

  #moved(event) {
    const links = [...$('apps').querySelectorAll('tbody a')];
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    links[Math.min(links.length - 1, Math.max(0, to))].focus();
  }

  /** Draws what has changed. `address` makes the fragment of a choice. */
  render({ state, chosen, filter, now, address }) {
    const { running, resting } = state.sorted();
    const shared = new Set();
    const seen = new Set();
    for (const { app } of running) (seen.has(app.name) ? shared : seen).add(app.name);
    const rows = running.map((record) => this.#running(record, { shared, now }));
    rows.push(...resting.map((app) => this.#resting(app)));
    const kept = rows.filter((row) => isKept(row.words, filter));
    for (const row of kept) {
      const isChosen = row.choice.pid === chosen?.pid && row.choice.name === chosen?.name;
      setAttribute(row.link, 'aria-current', isChosen ? 'true' : undefined);
      setAttribute(row.link, 'href', address(row.choice));
    }
    arrange(
      $('apps').tBodies[0],
      kept.map((row) => row.element),
    );
    this.#forget(new Set(rows));
    const all = running.length + resting.length;
    setText(
      $('apps-count'),
      kept.length === all ? grouped(all) : `${grouped(kept.length)} of ${grouped(all)}`,
    );
    this.#notes(state, all, kept.length, filter);
  }

  #notes(state, all, kept, filter) {
    $('apps-box').hidden = kept === 0;
    $('empty').hidden = kept > 0;
    setText(
      $('empty'),
      all > 0
        ? `No app matches “${plain(filter, 100)}”.`
        : 'No app runs. One that is started appears here by itself.',
    );
    const errors = state.errors.slice(0, 20).map((error) => plain(error));
    const list = $('errors');
    if (list.said === errors.join('\n')) return;
    list.said = errors.join('\n');
    list.hidden = errors.length === 0;
    list.replaceChildren(...errors.map((error) => element('li', {}, error)));
  }

  #forget(rows) {
    for (const [key, row] of this.#rows) {
      if (rows.has(row)) continue;
      this.#rows.delete(key);
      this.#sight.unobserve(row.element);
    }
  }

  #row(key, make) {
    let row = this.#rows.get(key);
    if (!row) {
      row = make();
      row.element.row = row;
      this.#rows.set(key, row);
      this.#sight.observe(row.element);
    }
    return row;
  }

  #running(record, { shared, now }) {
    const row = this.#row(record.pid, () => makeRow({ 'data-app': record.pid }));
    if (row.version === record.version && row.isDrawn) return row;
    const { app, figures } = record;
    const [state, isShared] = [stateOf(record), shared.has(app.name)];
    row.choice = { name: app.name, pid: record.pid };
    row.words = [plain(app.name), plain(app.namespace), state];
    setText(row.link, plain(app.name, 100));
    setText(
      row.more,
      [app.namespace === 'default' ? '' : plain(app.namespace, 40), isShared ? `pid ${record.pid}` : '']
        .filter(Boolean)
        .join(', '),
    );
    setState(row.cells.state, state);
    const up = online(app);
    setFigure(row.cells.workers, up, () => `${grouped(up)}/${grouped(app.wanted)}`);
    row.cells.workers.classList.toggle('short', up < app.wanted && !app.stopped);
    const last = figures.now;
    const values = {
      ...last,
      wait: last.waitMost,
      queued: record.counts.queued ?? last.queued,
      restarts: restarts(app),
    };
    for (const [name, shown] of FIGURES) if (shown) setFigure(row.cells[name], values[name], shown);
    row.isDrawn = row.isInSight === true;
    row.version = record.version;
    if (row.isInSight)
      drawSpark(row.spark, {
        moments: figures.moments,
        figure: 'connections',
        now,
        length: lengthOf(figures.moments, now),
      });
    return row;
  }

  #resting(app) {
    const row = this.#row(`at rest: ${app.name}`, () => makeRow({ 'data-resting': app.name }));
    const state = wordOf(app.state);
    row.choice = { name: app.name, pid: undefined };
    row.words = [plain(app.name), state];
    setText(row.link, plain(app.name, 100));
    setState(row.cells.state, state);
    return row;
  }
}

const makeRow = (attributes) => {
  const link = element('a', { href: '#' });
  const more = element('span', { className: 'faint' });
  const spark = element('canvas', { className: 'spark', 'aria-hidden': 'true' });
  const cells = {
    state: element('td', { 'data-figure': 'state', className: 'state' }),
    workers: element('td', { 'data-figure': 'workers', className: 'number' }),
  };
  for (const [name, shown, className] of FIGURES) {
    cells[name] = shown
      ? element('td', { 'data-figure': name, className: `number ${className}` })
      : element('td', { className }, spark);
  }
  const head = element('th', { scope: 'row' }, link, ' ', more);
  return {
    element: element('tr', attributes, head, ...Object.values(cells)),
    link,
    more,
    spark,
    cells,
    words: [],
  };
};
