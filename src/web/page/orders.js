// Commands: what each will do, asked once more before it is done, and how far it is.
// Whether the server takes commands at all is decided elsewhere.

import { $, element, say, setAttribute, setText } from './dom.js';
import { clock, count, grouped } from './format.js';
import { lastLines } from './events.js';
import { ask, read, TokenNeeded } from './live.js';
import { told, weight } from './sentence.js';
import { JsonLines } from './stream.js';
import { plain } from './text.js';

/** A command that has not begun to be answered after so long is given up, so that it is not sent much later. */
const PATIENCE_MS = 20_000;
const GIVEN_UP =
  'no answer within 20 seconds. Other tabs may have all connections: close some, and look whether it was done';

/** So many steps of a command are shown. */
const STEPS = 200;

const workersOf = (app) => count(app.wanted, 'worker');

/** Each: the verb, its body, the question, what will happen, and what the button says. */
const ORDERS = {
  reload: (name, app) => [
    'reload',
    {},
    `Reload ${name}?`,
    `${workersOf(app)} will be replaced, each by a new one that is ready first. If a new one fails, the old ones keep serving.`,
    'Reload',
  ],
  restart: (name, app) => [
    'restart',
    {},
    `Restart ${name}?`,
    `${workersOf(app)} will be ended and started again. Until the first is online again, clients wait.`,
    'Restart',
  ],
  stop: (name, app) => [
    'stop',
    {},
    `Stop ${name}?`,
    `${workersOf(app)} will be ended. The ports stay open and refuse clients until the app is started again.`,
    'Stop',
  ],
  start: (name, app) => ['start', {}, `Start ${name}?`, `${workersOf(app)} will be started.`, 'Start'],
  more: (name, app) => [
    'scale',
    { workers: '+1' },
    `One worker more for ${name}?`,
    `There will be ${grouped(app.wanted + 1)} instead of ${grouped(app.wanted)}.`,
    'Start one more',
  ],
  fewer: (name, app) => [
    'scale',
    { workers: '-1' },
    `One worker fewer for ${name}?`,
    `There will be ${grouped(app.wanted - 1)} instead of ${grouped(app.wanted)}. The one that ends gets time for its open connections.`,
    'End one',
  ],
};

/** A worker in one of these states has no process. */
const DOWN = ['stopped', 'errored'];

const OF_ONE = {
  restart: (name, worker) => [
    'restart',
    { worker },
    `Restart worker ${worker} of ${name}?`,
    'It will be ended and started again. The others keep serving.',
    'Restart',
  ],
  stop: (name, worker) => [
    'stop',
    { worker },
    `Stop worker ${worker} of ${name}?`,
    'It will be ended, and stays so until it is started again. The others keep serving.',
    'Stop',
  ],
  start: (name, worker) => [
    'start',
    { worker },
    `Start worker ${worker} of ${name}?`,
    'It will be started.',
    'Start',
  ],
};

export class Orders {
  #dialog = $('order');
  #pending;
  /** Counts the orders: what an earlier one still has to say is not shown with a later one. */
  #number = 0;

  constructor() {
    $('order-no').addEventListener('click', () => this.#dialog.close());
    $('order-yes').addEventListener('click', () => this.#run());
  }

  /** Asks about a command to an app. `word` means it to the server. */
  ofApp(action, { app }, word) {
    if (!Object.hasOwn(ORDERS, action)) return;
    this.#ask(word, ORDERS[action](plain(app.name, 60), app));
  }

  /** Asks what is to be done to one worker. */
  ofWorker(worker, { app }, word) {
    const name = plain(app.name, 60);
    this.#open(`Worker ${grouped(worker)} of ${name}`, 'What is to be done?');
    const isDown = app.workers.some(({ worker: other, state }) => other === worker && DOWN.includes(state));
    const choices = ['restart', isDown ? 'start' : 'stop'].map((action) => {
      const order = OF_ONE[action](name, worker);
      const button = element('button', { 'data-action': action }, order[4]);
      button.addEventListener('click', () => this.#ask(word, order));
      return button;
    });
    $('order-choice').replaceChildren(...choices);
    $('order-choice').hidden = false;
    $('order-yes').hidden = true;
    choices[0].focus();
  }

  #open(title, what) {
    this.#number += 1;
    setText($('order-title'), title);
    setText($('order-what'), what);
    $('order-choice').hidden = true;
    $('order-steps').hidden = true;
    $('order-steps').replaceChildren();
    $('order-outcome').replaceChildren();
    setAttribute($('order-outcome'), 'data-outcome', undefined);
    setText($('order-no'), 'Cancel');
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #ask(word, [verb, body, question, what, yes]) {
    this.#open(question, what);
    this.#pending = { word, verb, body };
    setText($('order-yes'), yes);
    $('order-yes').hidden = false;
    $('order-no').focus();
  }

  async #run() {
    const { word, verb, body } = this.#pending;
    const number = this.#number;
    $('order-yes').hidden = true;
    setText($('order-no'), 'Close');
    $('order-no').focus();
    setText($('order-outcome'), 'It is under way, and goes on when this is closed.');
    const isShown = () => number === this.#number;
    try {
      this.#end(await this.#follow(word, verb, body, isShown), verb, isShown);
    } catch {
      this.#end({ error: { message: 'the answer was cut off; the events tell how it went' } }, verb, isShown);
    }
  }

  /** The last line of the progress. */
  async #follow(word, verb, body, isShown) {
    const options = {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    };
    const control = new AbortController();
    const timer = setTimeout(() => control.abort(), PATIENCE_MS);
    let answer;
    try {
      answer = await ask(`/v1/apps/${encodeURIComponent(word)}/${verb}`, { ...options, signal: control.signal });
    } catch (failure) {
      if (control.signal.aborted) return { error: { message: GIVEN_UP } };
      return { error: { message: failure instanceof TokenNeeded ? failure.message : 'it could not be sent: nobody answers' } };
    } finally {
      clearTimeout(timer);
    }
    if (!answer.ok) return answer.json().catch(() => ({ error: { message: `status ${answer.status}` } }));
    let last = { error: { message: 'the answer has no end' } };
    await read(answer, new JsonLines(), (line) => {
      const said = JSON.parse(line);
      if (said.event === undefined) last = said;
      else if (isShown()) step(said);
    });
    return last;
  }

  #end({ done, error }, verb, isShown) {
    const text = error ? `${verb} failed: ${plain(error.message)}` : `${verb}: ${plain(done)}`;
    if (!isShown() || !this.#dialog.open) {
      say(text);
      return;
    }
    const outcome = $('order-outcome');
    outcome.replaceChildren(element('p', {}, text));
    setAttribute(outcome, 'data-outcome', error ? 'failed' : 'done');
    if (error?.help) outcome.append(element('p', { className: 'faint' }, plain(error.help)));
    if (error?.last_lines?.length > 0) outcome.append(lastLines(error.last_lines));
  }
}

/** The small steps of a worker are left out, as on the command line. */
const step = (event) => {
  if (
    ['worker-listens', 'worker-says', 'worker-stopping', 'reload-done', 'reload-failed'].includes(event.event)
  )
    return;
  const list = $('order-steps');
  list.hidden = false;
  list.append(
    element(
      'li',
      { 'data-weight': weight(event) },
      element('time', {}, clock(Date.parse(event.time))),
      element('span', { className: 'told' }, told(event)),
    ),
  );
  if (list.children.length > STEPS) list.firstElementChild.remove();
  list.scrollTop = list.scrollHeight;
};
