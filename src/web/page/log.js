// The log of the chosen app: the last lines, then those that come. It follows its end unless somebody reads further up.
// It keeps a bounded number of lines.

import { $, element, setText } from './dom.js';
import { count } from './format.js';
import { ask, read, TokenNeeded } from './live.js';
import { ServerEvents } from './stream.js';
import { logLine } from './text.js';

/** So many lines are kept. */
const LINES = 2000;

const RETRY_MS = 2000;

export class Log {
  #control;
  #key;
  #lines = [];
  #pending = [];
  #isPaused = false;
  #filter = '';
  #wake;

  constructor(wake) {
    this.#wake = wake;
    $('log-wrap').addEventListener('click', () => {
      const isWrapped = toggled($('log-wrap'));
      $('log').classList.toggle('unwrapped', !isWrapped);
    });
    $('log-pause').addEventListener('click', () => {
      this.#isPaused = toggled($('log-pause'));
      this.#note('');
      wake();
    });
    $('log-filter').addEventListener('input', (event) => {
      this.#filter = event.target.value.toLowerCase();
      for (const { node, text } of this.#lines) node.hidden = !this.#keeps(text);
    });
  }

  /** Follows this app's log, if it does not already; nothing to follow none. */
  follow(query) {
    if (query === this.#key) return;
    this.#key = query;
    this.#control?.abort();
    this.#clear();
    if (query === undefined) return;
    this.#control = new AbortController();
    this.#run(query, this.#control.signal);
  }

  #clear() {
    this.#lines = [];
    this.#pending = [];
    $('log').replaceChildren();
    this.#note('');
  }

  async #run(query, signal) {
    while (!signal.aborted) {
      try {
        const answer = await ask(`/log?${query}`, { signal, headers: { Accept: 'text/event-stream' } });
        if (answer.status === 404) return this.#note('This app has no log files.');
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        // It begins with the last lines again.
        if (!signal.aborted) this.#clear();
        await read(answer, new ServerEvents(), (text) => this.#heard(JSON.parse(text), signal));
      } catch (failure) {
        if (signal.aborted || failure instanceof TokenNeeded) return;
      }
      if (signal.aborted) return;
      this.#note('The log does not come; trying again.');
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  #heard({ lines, missed }, signal) {
    if (signal.aborted) return false;
    if (missed) this.#pending.push({ text: '', missed: true });
    if (Array.isArray(lines)) for (const line of lines) this.#pending.push(line);
    if (this.#pending.length > LINES) this.#pending.splice(0, this.#pending.length - LINES);
    this.#wake();
    return true;
  }

  /** Shows what has come. */
  render() {
    if (this.#pending.length === 0) return;
    if (this.#isPaused) {
      this.#note(`Paused; ${count(this.#pending.length, 'line has', 'lines have')} come.`);
      return;
    }
    const box = $('log-scroll');
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
    const made = this.#pending.map((line) => this.#make(line));
    this.#pending = [];
    this.#lines.push(...made);
    $('log').append(...made.map(({ node }) => node));
    for (const { node } of this.#lines.splice(0, Math.max(0, this.#lines.length - LINES))) node.remove();
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }

  #make({ text, error, worker, missed }) {
    const shown = missed
      ? 'Some lines were left out here: they came faster than they could be sent.'
      : logLine(text);
    const node = element('div', { 'data-line': error ? 'error' : missed ? 'missed' : 'out' });
    // A time that is known is in the line itself.
    if (Number.isInteger(worker)) node.append(element('span', { className: 'of' }, `worker ${worker}`));
    if (error) node.append(element('span', { className: 'hidden' }, 'error: '));
    node.append(element('span', { className: 'line' }, shown));
    node.hidden = !this.#keeps(shown);
    return { node, text: shown };
  }

  #keeps(text) {
    return this.#filter === '' || text.toLowerCase().includes(this.#filter);
  }

  #note(text) {
    $('log-note').hidden = text === '';
    setText($('log-note'), text);
  }
}

const toggled = (button) => {
  const isOn = button.getAttribute('aria-pressed') !== 'true';
  button.setAttribute('aria-pressed', String(isOn));
  return isOn;
};
