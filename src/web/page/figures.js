// How an app has done lately: rates and times, made of what it tells about once a second.
// It has no clock and touches no document.

import { since, quantile } from './histogram.js';
import { Ring } from './ring.js';

/** Times, and what is told of each worker, are of the last five seconds: one second alone has too few connections to go by. */
const WINDOW_MS = 5000;

/** What comes sooner after the last moment is none of its own: an app is told at once when a worker's state changes. */
const MOMENT_MS = 900;

/** Five minutes of them. */
const MOMENTS = 310;

/** How far charts go back: no further than they have to at first. */
const LENGTHS_MS = [60_000, 120_000, 300_000];

/** How far the charts of these moments go back. */
export const lengthOf = (moments, now) => {
  const age = now - (moments.at(0)?.at ?? now);
  return LENGTHS_MS.find((length) => age <= length) ?? LENGTHS_MS.at(-1);
};

const sum = (numbers) => {
  const known = numbers.filter((number) => number !== undefined);
  return known.length === 0 ? NaN : known.reduce((total, number) => total + number, 0);
};

/** While a worker is replaced, two processes share its number, and what is counted for it. */
export const byNumber = (workers, figure) => {
  const counts = new Map();
  for (const worker of workers) if (worker[figure] !== undefined) counts.set(worker.worker, worker[figure]);
  return counts;
};

/** Open connections of all workers. NaN where one does not tell. */
const open = (workers) =>
  workers.some((worker) => worker.connections_open === undefined)
    ? NaN
    : sum([...byNumber(workers, 'connections_open').values()]);

export class Figures {
  /** The last moments, each with the time that it was (`at`). */
  moments = new Ring(MOMENTS);
  #samples = new Ring(8);
  #workers = new Map();

  /** The last moment. */
  get now() {
    return this.moments.at(-1) ?? {};
  }

  /** What a worker has done in the last seconds: `taken` a second, and the mean `duration` of what has ended. */
  worker(number) {
    return this.#workers.get(number) ?? {};
  }

  /** The app has told this. Whether a moment came of it. */
  add(app, at, peak = 0) {
    const before = this.#samples.at(-1);
    if (before && at - before.at < MOMENT_MS) return false;
    this.#samples.push({ at, app });
    this.moments.push({
      at,
      ...gauges(app, peak),
      ...rates(app, before, at),
      ...times(app, this.#windowStart(at)),
    });
    this.#addWorkers(app, at);
    return true;
  }

  /** The newest sample that is as old as the window, or the oldest there is. */
  #windowStart(at) {
    let start;
    for (const sample of this.#samples) {
      if (sample.at === at || (start && sample.at > at - WINDOW_MS + MOMENT_MS / 2)) break;
      start = sample;
    }
    return start;
  }

  #addWorkers(app, at) {
    const start = this.#windowStart(at);
    this.#workers = new Map();
    if (!start) return;
    const before = new Map(start.app.workers.map((worker) => [worker.worker, worker]));
    for (const worker of app.workers) {
      const then = before.get(worker.worker);
      if (!then) continue;
      const ended = worker.connections_ended - then.connections_ended;
      this.#workers.set(worker.worker, {
        taken: isCounted(app)
          ? Math.max(0, worker.connections_taken - then.connections_taken) / ((at - start.at) / 1000)
          : NaN,
        duration:
          ended > 0 ? Math.max(0, worker.duration_sum_seconds - then.duration_sum_seconds) / ended : NaN,
      });
    }
  }
}

/** Connections that workers accept by themselves nobody counts. */
export const isCounted = (app) => app.accept !== 'workers' && app.traffic !== undefined;

/** `peak` is the longest queue since the last moment: one that came and went is seen, too. */
const gauges = (app, peak) => ({
  queued: app.traffic ? Math.max(app.traffic.queued, peak) : NaN,
  backlog: sum((app.traffic?.listen_queues ?? []).map((queue) => queue.connections)),
  open: open(app.workers),
  cpu: sum(app.workers.map((worker) => worker.cpu_percent)),
  memory: sum(app.workers.map((worker) => worker.memory_bytes)),
});

const rates = (app, before, at) => {
  const perSecond = (count) => {
    const [now, then] = [count(app.traffic), count(before?.app.traffic)];
    return now === undefined || then === undefined
      ? NaN
      : Math.max(0, now - then) / ((at - before.at) / 1000);
  };
  return {
    connections: isCounted(app) ? perSecond((traffic) => traffic?.accepted) : NaN,
    received: perSecond((traffic) => traffic?.received_bytes),
    sent: perSecond((traffic) => traffic?.sent_bytes),
  };
};

const times = (app, start) => {
  const lately = (name) =>
    start && app.traffic?.[name] ? since(app.traffic[name], start.app.traffic?.[name]) : undefined;
  const [wait, handoff, duration, rtt] = ['queue_wait', 'handoff', 'duration', 'rtt'].map(lately);
  return {
    waitHalf: quantile(wait, 0.5),
    waitMost: quantile(wait, 0.99),
    handoffHalf: quantile(handoff, 0.5),
    handoffMost: quantile(handoff, 0.99),
    durationHalf: quantile(duration, 0.5),
    durationMost: quantile(duration, 0.99),
    rtt: quantile(rtt, 0.5),
  };
};
