// Which of an app's workers are old and which are new, while some are replaced; and the state of the whole.
// It touches no document.

const isLeaving = (worker) => worker.state === 'draining' || worker.state === 'stopping';

/** The newest first: one that leaves is older than one that does not, then the one that runs longer is older. */
const newestFirst = (one, other) =>
  isLeaving(one) - isLeaving(other) || (one.uptime_ms ?? 0) - (other.uptime_ms ?? 0);

/**
 * The workers by number, each with a key that stays the same while it is the newest or an older one of its number, and
 * `generation`: `new` and `old` where a number has two, else ``.
 */
export const generations = (workers) => {
  const numbers = group(workers);
  const rows = [];
  for (const number of [...numbers.keys()].sort((one, other) => one - other)) {
    const [newest, ...older] = [...numbers.get(number)].sort(newestFirst);
    older
      .reverse()
      .forEach((worker, at) =>
        rows.push({ key: `${number}.${older.length - at}`, worker, generation: 'old' }),
      );
    rows.push({ key: `${number}`, worker: newest, generation: older.length > 0 ? 'new' : '' });
  }
  return rows;
};

const group = (workers) => {
  const numbers = new Map();
  for (const worker of workers) numbers.set(worker.worker, [...(numbers.get(worker.worker) ?? []), worker]);
  return numbers;
};

/** A worker's state in words, whichever form it comes in. */
export const wordOf = (state) =>
  String(state ?? '')
    .replaceAll('_', ' ')
    .slice(0, 40);

/** How many workers are online. While one is replaced, the old and the new one count once. */
export const online = (app) =>
  new Set(app.workers.filter(({ state }) => state === 'online').map(({ worker }) => worker)).size;

// How long a worker without a port has to run until it counts as up.
const LASTING_MS = 1000;

const isUp = (app) => {
  const lasts = (worker) => worker.state === 'online' && worker.uptime_ms >= LASTING_MS;
  return app.ready && ((app.addresses ?? []).length > 0 || app.workers.every(lasts));
};

/** The state of the whole, in the words of its workers. */
export const stateOf = ({ app, silent }) => {
  if (silent !== undefined) return 'no answer';
  if (app.stopped) return 'stopped';
  if (app.reload !== undefined) return 'reloading';
  if (app.workers.length > 0 && app.workers.every((worker) => worker.state === 'errored')) return 'errored';
  if (isUp(app)) return 'online';
  const is = (state) => app.workers.some((worker) => worker.state === state);
  return !is('online') && !is('launching') && is('waiting_restart') ? 'waiting restart' : 'launching';
};

/** How often workers were restarted, all together: the two of one number share the count. */
export const restarts = (app) => {
  const counts = new Map();
  for (const { worker, restarts } of app.workers)
    counts.set(worker, Math.max(counts.get(worker) ?? 0, restarts ?? 0));
  return [...counts.values()].reduce((total, number) => total + number, 0);
};
