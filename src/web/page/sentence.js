// Events in words, for people who watch: the words of `clusterd events`. Where a field is left out, its part of the sentence is.
// It touches no document.

import { grouped, span } from './format.js';
import { plain } from './text.js';

const worker = ({ worker }) => `worker ${grouped(worker)}`;
// What a page may not know is empty, or 0.
const pid = (event) => (event.pid ? ` (pid ${event.pid})` : '');
const because = (event) => (event.reason ? `: ${plain(event.reason)}` : '');
const by = (event) => (event.by ? ` by ${plain(event.by, 200)}` : '');

const SENTENCES = {
  'worker-started': (event) => `${worker(event)} started${pid(event)}`,
  'worker-listens': (event) => `${worker(event)} listens on port ${plain(event.port, 10)}`,
  'worker-online': (event) => `${worker(event)} online${pid(event)}`,
  'worker-failed': (event) => `${worker(event)} failed${pid(event)}${because(event)}`,
  'worker-draining': (event) => `${worker(event)} draining${pid(event)}`,
  'worker-stopping': (event) => `${worker(event)} stopping${pid(event)}`,
  'worker-ended': (event) =>
    `${worker(event)} ${event.how ? plain(event.how) : 'ended'}${pid(event)}`,
  'worker-restarts': (event) => `${worker(event)} restarts in ${span(event.in_ms)}${because(event)}`,
  'worker-errored': (event) => `${worker(event)} given up${because(event)}`,
  'worker-stalled': (event) => `${worker(event)} took no connection in time`,
  'worker-moves': (event) => `${worker(event)} recovered`,
  'worker-replaced': (event) => `replacing ${worker(event)}${because(event)}`,
  'worker-says': (event) =>
    `${worker(event)} says ${event.message === undefined ? 'something' : plain(JSON.stringify(event.message))}`,
  'reload-started': (event) => `reload started${by(event)}`,
  'reload-done': (event) => `reload done, workers replaced: ${grouped(event.workers)}`,
  // The reason says who keeps serving.
  'reload-failed': (event) => `reload failed${event.reason ? because(event) : '; old workers keep serving'}`,
  scaled: (event) => `scaled to ${grouped(event.workers)}${by(event)}`,
  'app-started': (event) => `started${by(event)}`,
  'app-stopping': (event) => `workers stopped${by(event)}; the ports stay open`,
  stopping: (event) => `clusterd stopping${event.by ? `, requested${by(event)}` : ''}`,
  'clusterd-gone': (event) => `clusterd${pid(event)} has gone`,
  missed: (event) => `${grouped(event.events)} events were missed`,
};

/** An event, as it is told. One that this page does not know is told as it came. */
export const told = (event) => {
  if (Object.hasOwn(SENTENCES, event.event)) return SENTENCES[event.event](event);
  const { time, app, event: kind, ...fields } = event;
  return plain(`${kind} ${JSON.stringify(fields)}`);
};

/** How much an event matters: `bad`, `warn`, `good`, `plain`, or `small` for the steps in between. */
export const weight = (event) => {
  switch (event.event) {
    case 'worker-failed':
    case 'worker-errored':
    case 'reload-failed':
      return 'bad';
    case 'worker-ended':
      return event.expected === false ? 'bad' : 'small';
    case 'worker-restarts':
    case 'worker-stalled':
    case 'clusterd-gone':
    case 'missed':
      return 'warn';
    case 'worker-online':
    case 'worker-moves':
    case 'reload-done':
      return 'good';
    case 'worker-started':
    case 'worker-listens':
    case 'worker-stopping':
    case 'worker-draining':
      return 'small';
    default:
      return 'plain';
  }
};
