// The workers of the chosen app: a row each, with its lane. Only what is in sight is brought up to date.
// What a command does to a worker is asked elsewhere.

import { $, arrange, element, Order, setAttribute, setFigure, setState, setText } from './dom.js';
import { bytes, grouped, percent, rate, seconds, uptime } from './format.js';
import { generations, wordOf } from './generations.js';
import { LANE_MS } from './lane.js';
import { drawLane } from './paint.js';
import { isKept } from './place.js';
import { plain } from './text.js';

/** The columns: the figure, its head, its long name, and how it is shown if it is a number. */
const COLUMNS = [
  ['worker', 'worker', 'number'],
  ['state', 'state', 'state'],
  ['lane', '', ''],
  ['taken', 'taken/s', 'connections taken a second', rate],
  ['open', 'open', 'open connections', grouped],
  ['duration', 'duration', 'mean duration', seconds],
  ['cpu', 'CPU', 'CPU', percent],
  ['memory', 'memory', 'memory', bytes],
  ['restarts', 'restarts', 'restarts', grouped],
  ['uptime', 'up', 'uptime', uptime],
  ['pid', 'pid', 'process id', (pid) => (pid === undefined ? '-' : String(pid))],
  ['end', 'last end', 'last end'],
];

/** More lanes than these are drawn less often. */
const MANY_LANES = 24;
const OFTEN_MS = 33;
const RARELY_MS = 100;
const STEPS_MS = 1000;

/** So many rows are kept in sight or out of it together. */
const BLOCK = 32;

/** So many rows that are out of sight are brought up to date at a time. */
const OUT_OF_SIGHT = 64;

/** A live order is looked at anew after this time, so that rows can be read. */
const SORT_MS = 3000;

export class Workers {
  #rows = new Map();
  #inSight = new Set();
  #sight;
  #blockSight;
  #order;
  #sortedAt = -Infinity;
  #record;
  #version;
  #filter = '';
  #hasActions = false;
  #lane = { width: 0, height: 0, at: -Infinity };
  #size;
  #isNew = new Set();

  constructor(wake) {
    this.#blockSight = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          target.isInSight = isIntersecting;
          for (const row of target.rowsOf) this.#watch(row, isIntersecting);
        }
      },
      { rootMargin: '300px' },
    );
    this.#sight = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) this.#seen(target.row, isIntersecting);
        wake();
      },
      { rootMargin: '60px' },
    );
    this.#size = new ResizeObserver(() => {
      this.#lane.width = 0;
      wake();
    });
    this.#size.observe($('workers'));
    this.#order = new Order('worker', false, () => {
      this.#arrangeAnew();
      wake();
    });
    $('workers').tHead.append(this.#head());
    $('workers-filter').addEventListener('input', (event) => {
      this.#filter = event.target.value;
      this.#arrangeAnew();
      wake();
    });
  }

  #head() {
    const cells = COLUMNS.map(([figure, head, name, shown]) => {
      const cell = headCell(`w-${figure}${shown ? ' number' : ''}`);
      if (figure !== 'lane') return this.#order.head(cell, figure, head, shown !== undefined, name);
      cell.append(hidden('lane of '), element('span', {}, '30 s'), element('span', {}, 'now'));
      return cell;
    });
    const orders = headCell('w-orders');
    orders.append(hidden('commands'));
    return element('tr', { role: 'row' }, ...cells, orders);
  }

  /** The next occasion draws everything in its order. */
  #arrangeAnew() {
    [this.#version, this.#sortedAt] = [undefined, -Infinity];
  }

  #seen(row, isInSight) {
    if (isInSight) this.#inSight.add(row);
    else this.#lost(row);
    row.isStale = true;
  }

  #lost(row) {
    this.#inSight.delete(row);
    // The memory of its lane is given back; it is drawn anew when it is seen again.
    row.canvas.remove();
    row.canvas.width = 0;
  }

  /** A row is watched while its block is in sight: a thousand that are watched cost more than they show. */
  #watch(row, isWatched) {
    if (row.isWatched === isWatched) return;
    row.isWatched = isWatched;
    if (isWatched) this.#sight.observe(row.element);
    else {
      this.#sight.unobserve(row.element);
      this.#lost(row);
    }
  }

  /** Puts the rows in this order, in blocks: what is out of sight is left out of layout by the block. */
  #place(rows) {
    const table = $('workers');
    for (let at = 0; at * BLOCK < Math.max(1, rows.length); at += 1) {
      const block = table.tBodies[at] ?? this.#makeBlock(table);
      block.rowsOf = rows.slice(at * BLOCK, (at + 1) * BLOCK);
      block.style.setProperty('--rows', block.rowsOf.length);
      arrange(
        block,
        block.rowsOf.map((row) => row.element),
      );
      for (const row of block.rowsOf) this.#watch(row, block.isInSight === true);
    }
    while (table.tBodies.length > Math.max(1, Math.ceil(rows.length / BLOCK))) {
      const block = table.tBodies[table.tBodies.length - 1];
      this.#blockSight.unobserve(block);
      block.remove();
    }
    const placed = new Set(rows);
    for (const row of this.#rows.values()) if (!placed.has(row)) this.#watch(row, false);
  }

  #makeBlock(table) {
    const block = element('tbody', { role: 'rowgroup' });
    table.append(block);
    this.#blockSight.observe(block);
    return block;
  }

  /** Brings rows up to date, those in sight alone. */
  render({ record, now, hasActions }) {
    if (record !== this.#record) this.#begin(record);
    if (hasActions !== this.#hasActions) {
      this.#hasActions = hasActions;
      $('workers').classList.toggle('has-orders', hasActions);
    }
    if (record.version !== this.#version) this.#arrange(record, now);
    for (const row of this.#inSight) if (row.isStale) this.#fill(row, record);
  }

  /** Rows out of sight are for screen readers and searches: a few at a time. */
  #fillOthers(rows, record) {
    const others = rows.filter((row) => !this.#inSight.has(row));
    others.sort((one, other) => (one.filledAt ?? 0) - (other.filledAt ?? 0));
    for (const row of others.slice(0, OUT_OF_SIGHT)) this.#fill(row, record);
  }

  #begin(record) {
    this.#record = record;
    this.#arrangeAnew();
    this.#rows.clear();
    this.#inSight.clear();
    this.#sight.disconnect();
    this.#blockSight.disconnect();
    for (const block of [...$('workers').tBodies]) block.remove();
  }

  #arrange(record, now) {
    this.#version = record.version;
    const listed = generations(record.app.workers);
    const all = listed.map(({ key, worker, generation }) => {
      const row = this.#rows.get(key) ?? this.#make(key, worker.worker);
      Object.assign(row, { worker, generation, isStale: true });
      setAttribute(row.element, 'data-generation', generation || undefined);
      setAttribute(row.element, 'data-state', wordOf(worker.state).replaceAll(' ', '-'));
      return row;
    });
    for (const key of this.#isNew) this.#fill(this.#rows.get(key), record);
    const keys = new Set(listed.map(({ key }) => key));
    for (const [key, row] of this.#rows) if (!keys.has(key)) this.#drop(key, row);
    const isDifferent = this.#isNew.size > 0 || this.#order.by !== 'worker' || this.#sortedAt === -Infinity;
    const isDue = this.#isNew.size > 0 || now - this.#sortedAt > SORT_MS;
    const kept = all.filter(({ worker, generation }) =>
      isKept([`${worker.worker}`, wordOf(worker.state), generation], this.#filter),
    );
    if ((isDifferent && isDue) || this.#filter !== '') {
      this.#sortedAt = now;
      this.#isNew.clear();
      this.#place(this.#order.sorted(kept, (row, by) => values(row, record)[by]));
    }
    this.#fillOthers(all, record);
    const total = new Set(record.app.workers.map(({ worker }) => worker)).size;
    setText(
      $('workers-count'),
      kept.length === all.length ? grouped(total) : `${grouped(kept.length)} of ${grouped(all.length)}`,
    );
  }

  #make(key, number) {
    const row = makeRow();
    setAttribute(row.element, 'data-worker', number);
    row.element.row = row;
    this.#rows.set(key, row);
    this.#isNew.add(key);
    return row;
  }

  #drop(key, row) {
    this.#rows.delete(key);
    this.#isNew.delete(key);
    this.#watch(row, false);
    row.element.remove();
  }

  #fill(row, record) {
    row.isStale = false;
    row.filledAt = record.version;
    const { worker, generation, cells } = row;
    const figures = values(row, record);
    setAttribute(row.element, 'data-taken', record.taken(worker.worker));
    setText(row.number, grouped(worker.worker));
    setText(row.mark, generation);
    setState(cells.state, wordOf(worker.state));
    for (const [name, , , shown] of COLUMNS) if (shown) setFigure(cells[name], figures[name], shown);
    setText(cells.end, figures.end);
    for (const cell of [cells.end, cells.state]) setAttribute(cell, 'title', figures.end || undefined);
    setAttribute(row.button, 'aria-label', `Commands for worker ${worker.worker}`);
  }

  /** Draws the lanes that are in sight. The answer is when they want to be drawn again; nothing if they stand still. */
  drawLanes({ record, now, isStill }) {
    if (this.#inSight.size === 0 || record !== this.#record) return undefined;
    const every = isStill ? STEPS_MS : this.#inSight.size > MANY_LANES ? RARELY_MS : OFTEN_MS;
    if (now - this.#lane.at < every - 4) return this.#lane.at + every;
    this.#lane.at = now;
    if (this.#lane.width === 0) this.#measure();
    // What is drawn is a little behind, so that a connection is seen where it stays.
    const until = (isStill ? Math.floor(now / STEPS_MS) * STEPS_MS : now) - 250;
    let isMoving = false;
    for (const row of this.#inSight) {
      const entry = record.lanes.get(row.worker.worker);
      const isBusy =
        entry !== undefined &&
        Math.max(entry.lane.newest * 100, entry.marks.at(-1)?.at ?? 0) > now - LANE_MS - 1000;
      if (!isBusy && row.isBlank && row.canvas.isConnected) continue;
      if (!row.canvas.isConnected) row.cells.lane.append(row.canvas);
      row.isBlank = !isBusy;
      isMoving ||= isBusy;
      drawLane(row.canvas, {
        entry: entry ?? NO_LANE,
        now: until,
        ...bounds(row, entry),
        width: this.#lane.width,
        height: this.#lane.height,
        isOld: row.generation === 'old' && row.worker.state !== 'online',
      });
    }
    return isMoving ? now + every : undefined;
  }

  #measure() {
    const [{ canvas, cells }] = this.#inSight;
    if (!canvas.isConnected) cells.lane.append(canvas);
    [this.#lane.width, this.#lane.height] = [canvas.clientWidth, canvas.clientHeight];
  }

  /** Everything is drawn anew: the colours have changed. */
  repaint() {
    this.#lane.at = -Infinity;
    for (const row of this.#inSight) row.isBlank = false;
  }
}

const headCell = (className) => element('th', { scope: 'col', role: 'columnheader', className });

const hidden = (text) => element('span', { className: 'hidden' }, text);

const NO_LANE = { lane: { at: () => 0 }, marks: [] };

/** What belongs to the older and the newer worker of a number: nobody counts them apart, but one follows the other. */
const bounds = ({ generation, worker }, entry) => {
  const isBorn = worker.pid === entry?.newest || worker.started === entry?.newest;
  if (generation === 'new')
    return isBorn ? { from: entry.bornAt, to: Infinity } : { from: Infinity, to: Infinity };
  const hasSuccessor = generation === 'old' && entry?.newest !== undefined && !isBorn;
  return { from: -Infinity, to: hasSuccessor ? entry.bornAt : Infinity };
};

const hasTurn = ({ worker, generation }, record) => {
  if (generation === '') return true;
  const isNewOnline = record.app.workers.some(
    (other) => other.worker === worker.worker && other !== worker && other.state === 'online',
  );
  return worker.state === 'online' && (generation === 'new' || !isNewOnline);
};

const values = ({ worker, generation }, record) => {
  // What is counted for a number belongs to the one that takes connections.
  const lately = hasTurn({ worker, generation }, record) ? record.figures.worker(worker.worker) : {};
  return {
    worker: worker.worker,
    state: wordOf(worker.state),
    taken: lately.taken,
    open: worker.connections_open,
    duration: lately.duration,
    cpu: worker.cpu_percent,
    memory: worker.memory_bytes,
    restarts: worker.restarts,
    uptime: worker.uptime_ms,
    pid: worker.pid,
    end: plain(worker.last_end, 200),
  };
};

const makeRow = () => {
  const canvas = element('canvas', { className: 'lane', 'aria-hidden': 'true' });
  const number = element('span');
  const mark = element('span', { className: 'generation' });
  const button = element('button', { className: 'quiet', 'data-action': 'worker' }, '\u22ef');
  const cells = {};
  for (const [name, head] of COLUMNS.slice(1)) {
    const isText = name === 'state' || name === 'end';
    cells[name] = element('td', {
      role: 'cell',
      'data-figure': name === 'lane' ? undefined : name,
      'data-label': head,
      className: `w-${name}${isText ? '' : ' number'}${name === 'state' ? ' state' : ''}`,
    });
  }
  const head = element('th', { scope: 'row', role: 'rowheader', className: 'w-worker' }, number, mark);
  const orders = element('td', { role: 'cell', className: 'w-orders' }, button);
  return {
    element: element('tr', { role: 'row' }, head, ...Object.values(cells), orders),
    canvas,
    number,
    mark,
    cells,
    button,
  };
};
