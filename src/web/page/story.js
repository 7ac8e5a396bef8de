// What the timeline shows of an app's events: bands for what lasts (reloads, stops, stalls), marks for the rest.
// It draws nothing and has no clock.

import { count, clock, span } from './format.js';
import { told, weight } from './sentence.js';
import { plain } from './text.js';

/** So many of each are kept. A reload of a thousand workers is one of them, however many events it has. */
const KEPT = { reloads: 100, stops: 100, stalls: 500, marks: 1000 };

/**
 * What has been heard, oldest first:
 * - `reloads`: `from`, `to` (absent while it is under way), `outcome` (`running`, `done`, `failed`), `by`, `reason`, `workers`
 *   (replaced), `canary` (`worker`, `from`, `to`), `news` (the new workers that were online) and `steps`: `[at, how many]`;
 * - `stops`: `from`, `to`; `stalls`: `worker`, `from`, `to`;
 * - `marks`: `at`, `weight`, `text`.
 */
export class Story {
  reloads = [];
  stops = [];
  stalls = [];
  marks = [];
  #stalled = new Map();

  /** An event has happened. */
  hear(at, event) {
    const handler = HANDLERS.get(event.event);
    if (handler) this[handler](at, event);
    const worth = weight(event);
    if (worth !== 'small' && !event.event.startsWith('reload-')) this.#mark(at, event, worth);
    for (const [list, most] of Object.entries(KEPT)) if (this[list].length > most) this[list].shift();
  }

  get #reload() {
    const last = this.reloads.at(-1);
    return last?.outcome === 'running' ? last : undefined;
  }

  #mark(at, event, worth) {
    if (event.event === 'worker-online' && this.#reload) return;
    this.marks.push({ at, weight: worth, text: told(event) });
  }

  reloadStarted(at, { by }) {
    this.reloads.push({
      from: at,
      to: undefined,
      outcome: 'running',
      by,
      steps: [],
      canary: undefined,
      news: new Set(),
      workers: 0,
    });
  }

  reloadEnded(at, event) {
    const reload = this.#reload;
    const isDone = event.event === 'reload-done';
    if (!reload) {
      // It could not begin, or began before the first event that is known.
      this.marks.push({ at, weight: weight(event), text: told(event) });
      return;
    }
    if (reload.canary) reload.canary.to ??= at;
    Object.assign(reload, { to: at, outcome: isDone ? 'done' : 'failed', reason: event.reason });
    if (isDone) reload.workers = event.workers ?? reload.news.size;
  }

  workerStarted(at, { worker }) {
    const reload = this.#reload;
    if (!reload) return;
    if (!reload.canary) reload.canary = { worker, from: at, to: undefined };
    else reload.canary.to ??= at;
  }

  workerOnline(at, { worker }) {
    const reload = this.#reload;
    if (!reload || reload.news.has(worker)) return;
    reload.news.add(worker);
    reload.steps.push([at, reload.news.size]);
  }

  /** An old worker drains: its successor is trusted. */
  workerDraining(at) {
    const canary = this.#reload?.canary;
    if (canary) canary.to ??= at;
  }

  workerStalled(at, { worker }) {
    const stall = { worker, from: at, to: undefined };
    this.stalls.push(stall);
    this.#stalled.set(worker, stall);
  }

  workerMoves(at, { worker }) {
    const stall = this.#stalled.get(worker);
    if (stall) stall.to = at;
    this.#stalled.delete(worker);
  }

  appStopping(at) {
    this.stops.push({ from: at, to: undefined });
  }

  appStarted(at) {
    const stop = this.stops.at(-1);
    if (stop) stop.to ??= at;
  }
}

const HANDLERS = new Map(
  Object.entries({
    'reload-started': 'reloadStarted',
    'reload-done': 'reloadEnded',
    'reload-failed': 'reloadEnded',
    'worker-started': 'workerStarted',
    'worker-online': 'workerOnline',
    'worker-draining': 'workerDraining',
    'worker-stalled': 'workerStalled',
    'worker-moves': 'workerMoves',
    'worker-ended': 'workerMoves',
    'app-stopping': 'appStopping',
    'app-started': 'appStarted',
  }),
);

/** A reload as a sentence, with everything that its band shows. */
export const reloadTold = (reload, now) => {
  const { from, to, outcome, by, reason, workers, news, canary } = reload;
  const parts = [`Reload at ${clock(from)}${by ? ` by ${plain(by, 200)}` : ''}`];
  if (canary)
    parts.push(
      `canary worker ${canary.worker}${canary.to === undefined ? ' on trial' : ` for ${span(canary.to - canary.from)}`}`,
    );
  if (outcome === 'done') parts.push(`${count(workers, 'worker')} replaced in ${span(to - from)}`);
  if (outcome === 'running')
    parts.push(`${count(news.size, 'new worker')} online, running for ${span(Math.max(0, now - from))}`);
  if (outcome === 'failed') {
    const why = reason ? plain(reason, 300) : 'old workers keep serving';
    parts.push(`failed after ${span(to - from)} and rolled back: ${why}`);
  }
  return `${parts.join('; ')}.`;
};

/** Where the lines of the time axis are: at whole multiples, at most `most` of them. */
export const axis = (from, to, most) => {
  const STEPS = [10, 30, 60, 120, 300, 600, 1200, 1800, 3600].map((seconds) => seconds * 1000);
  const step = STEPS.find((size) => (to - from) / size <= most) ?? STEPS.at(-1);
  const lines = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) lines.push(at);
  return lines;
};
