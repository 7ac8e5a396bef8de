// What is known of all apps: what the messages of `/live` make of it.
// It draws nothing and has no clock: each message comes with the time that it came at, in milliseconds.

import { Figures, byNumber, isCounted } from './figures.js';
import { generations } from './generations.js';
import { Lane } from './lane.js';
import { Ring } from './ring.js';
import { Story } from './story.js';

/** How many events of an app are kept. */
export const EVENTS = 2000;

/** Ticks come this often while something changes: a count that comes later is of this time at most. */
const TICK_MS = 250;

/** Of so many apps that have gone it is known what happened. */
const PASTS = 50;

/** How many marks a lane has. */
const MARKS = 8;

/** An app that runs. */
class AppRecord {
  app;
  figures = new Figures();
  lanes = new Map();
  events = new Ring(EVENTS);
  /** The counts since the start, of the last tick or the last whole. */
  counts = {};
  /** How far the clock of its machine is ahead of the time that messages come at. */
  clock = 0;
  /** They grow with every change of the app and of its events. */
  version = 0;
  heard = 0;
  /** Why its clusterd does not answer, if so: what else is known of it is old. */
  silent;
  story = new Story();
  #taken = new Map();
  #tickAt = -Infinity;
  #peak = 0;

  constructor(pid) {
    this.pid = pid;
  }

  setApp(app, at) {
    this.app = app;
    this.silent = undefined;
    this.version += 1;
    if (app.started !== undefined && app.uptime_ms !== undefined)
      this.clock = Date.parse(app.started) + app.uptime_ms - at || 0;
    if (this.figures.add(app, at, this.#peak)) this.#peak = 0;
    if (app.traffic) this.#count(app.traffic, byNumber(app.workers, 'connections_taken'), at, isCounted(app));
    this.#noteNewest(at);
  }

  fallSilent(why) {
    this.silent = why ?? '';
    this.version += 1;
  }

  tick({ taken = [], ...counts }, at) {
    this.#peak = Math.max(this.#peak, counts.queued ?? 0);
    this.#count({ ...this.counts, ...counts }, taken, at, true);
  }

  addEvent(event, at) {
    const said = Date.parse(event.time);
    const time = Number.isNaN(said) ? at + this.clock : said;
    this.events.push({ at: time, event });
    this.story.hear(time, event);
    this.heard += 1;
    if (event.event === 'worker-online') this.#mark(event.worker, time - this.clock, 'start');
    if (event.event === 'worker-ended' && event.expected === false)
      this.#mark(event.worker, time - this.clock, 'crash');
  }

  lane(number) {
    let entry = this.lanes.get(number);
    if (!entry) {
      entry = { lane: new Lane(), marks: [], newest: undefined, bornAt: -Infinity };
      this.lanes.set(number, entry);
    }
    return entry;
  }

  #count({ accepted, rejected, redispatched, queued }, taken, at, isDrawn) {
    this.counts = { accepted, rejected, redispatched, queued };
    const from = Math.max(this.#tickAt, at - TICK_MS);
    for (const [number, count] of taken) {
      const before = this.#taken.get(number);
      // A whole may be a little older than the tick before it; what it lacks is not given twice.
      if (count <= before) continue;
      this.#taken.set(number, count);
      if (isDrawn && before !== undefined) this.lane(number).lane.add(from, at, count - before);
    }
    this.#tickAt = at;
  }

  /** How many connections workers of this number have taken so far. */
  taken(number) {
    return this.#taken.get(number);
  }

  #mark(number, at, kind) {
    if (!Number.isInteger(number)) return;
    const { marks } = this.lane(number);
    marks.push({ at, kind });
    if (marks.length > MARKS) marks.shift();
  }

  /** Since when the newest worker of each number is online: what was given before went to an older one. */
  #noteNewest(at) {
    const numbers = new Set();
    for (const { worker, generation } of generations(this.app.workers)) {
      numbers.add(worker.worker);
      const identity = worker.pid ?? worker.started;
      if (generation === 'old' || worker.state !== 'online' || identity === undefined) continue;
      const entry = this.lane(worker.worker);
      if (entry.newest !== identity) Object.assign(entry, { newest: identity, bornAt: at });
    }
    // A smaller scale, or a number of workers that changes all the time, leaves nothing behind.
    for (const number of this.lanes.keys()) if (!numbers.has(number)) this.lanes.delete(number);
    for (const number of this.#taken.keys()) if (!numbers.has(number)) this.#taken.delete(number);
  }
}

export class State {
  home;
  apps = new Map();
  resting = [];
  errors = [];
  /** It grows whenever apps come or go. */
  version = 0;
  #former = new Map();
  #unborn = new Map();
  #past = new Map();

  /** A message has come. Its kind, and the pid of the app that it is about. */
  apply(message, at) {
    const kind = Object.keys(message)[0];
    const value = message[kind];
    if (value === null || typeof value !== 'object') return {};
    switch (kind) {
      case 'home':
        this.#begin(value);
        break;
      case 'resting':
        [this.resting, this.errors] = [value.apps ?? [], value.errors ?? []];
        this.version += 1;
        break;
      case 'app':
        this.#app(value, at);
        break;
      case 'tick':
        this.apps.get(value.pid)?.tick(value, at);
        break;
      case 'event':
        this.#events(value.pid, [value.event], at);
        break;
      case 'history':
        this.#events(value.pid, value.events ?? [], at);
        break;
      case 'silent':
        this.apps.get(value.pid)?.fallSilent(value.why);
        break;
      case 'gone':
        this.#gone(this.apps.get(value.pid), at);
        this.apps.delete(value.pid);
        this.#unborn.delete(value.pid);
        this.version += 1;
        break;
      default:
        return {};
    }
    return { kind, pid: value.pid };
  }

  /** What happened to an app outlives its clusterd: another one may be started for it. */
  #gone(record, at) {
    if (!record) return;
    const time = new Date(at + record.clock).toISOString();
    record.addEvent({ time, event: 'clusterd-gone', pid: record.pid }, at);
    this.#past.delete(record.app.name);
    this.#past.set(record.app.name, [...record.events].map(({ event }) => event));
    if (this.#past.size > PASTS) this.#past.delete(this.#past.keys().next().value);
  }

  /** Everything follows anew. What was drawn of an app goes on if it is still the same process. */
  #begin(home) {
    this.#former = this.apps;
    this.#unborn = new Map();
    this.apps = new Map();
    [this.home, this.resting, this.errors] = [home, [], []];
    this.version += 1;
  }

  #app(app, at) {
    let record = this.apps.get(app.pid);
    if (!record) {
      record = this.#revived(app) ?? new AppRecord(app.pid);
      this.apps.set(app.pid, record);
    }
    if (record.app?.name !== app.name) this.version += 1;
    record.setApp({ ...app, workers: app.workers ?? [] }, at);
    const past = this.#unborn.has(app.pid) ? this.#past.get(app.name) : undefined;
    if (past) this.#past.delete(app.name);
    for (const event of [...(past ?? []), ...(this.#unborn.get(app.pid) ?? [])]) record.addEvent(event, at);
    this.#unborn.delete(app.pid);
  }

  #revived(app) {
    const former = this.#former.get(app.pid);
    this.#former.delete(app.pid);
    if (!former || former.app.started !== app.started) return undefined;
    former.events = new Ring(EVENTS);
    former.story = new Story();
    former.heard += 1;
    return former;
  }

  /** Those of an app that has not been told of yet wait for it, within bounds. */
  #events(pid, events, at) {
    const record = this.apps.get(pid);
    const known = events.filter((event) => typeof event?.event === 'string');
    if (record) {
      known.forEach((event) => record.addEvent(event, at));
    } else if (this.#unborn.size < 1000 || this.#unborn.has(pid)) {
      this.#unborn.set(pid, [...(this.#unborn.get(pid) ?? []), ...known].slice(-EVENTS));
    }
  }

  /** The apps by name, then by pid; those at rest are last. */
  sorted() {
    const byName = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
    const running = [...this.apps.values()].sort(
      (one, other) => byName(one.app.name, other.app.name) || one.pid - other.pid,
    );
    return { running, resting: [...this.resting].sort((one, other) => byName(one.name, other.name)) };
  }

  /** The word that means this app to the server: its name, or its pid where two share the name. */
  wordOf(record) {
    const isShared = [...this.apps.values()].some(
      (other) => other !== record && other.app.name === record.app.name,
    );
    return isShared ? String(record.pid) : record.app.name;
  }

  /** The app that was chosen: by pid, or another of that name. */
  find(name, pid) {
    const byPid = this.apps.get(pid);
    if (byPid && (name === undefined || byPid.app.name === name)) return byPid;
    return this.sorted().running.find((record) => record.app.name === name);
  }
}
