// The events of the chosen app: the timeline, the same in words, and the list of the last ones.
// What the timeline shows is worked out in story.js.

import { $, element, setAttribute, setText } from './dom.js';
import { clock, count, grouped, moment } from './format.js';
import { drawTimeline } from './paint.js';
import { SPANS } from './place.js';
import { told, weight } from './sentence.js';
import { reloadTold } from './story.js';
import { plain } from './text.js';

/** So many are in the list. */
const LISTED = 300;

/** So many reloads are told in words. */
const BANDS = 50;

/** Last lines of a worker that are shown. */
const LAST_LINES = 50;

export class Events {
  #record;
  #heard = 0;
  #places = [];
  #drawnAt = -Infinity;
  #pointer;

  constructor(wake) {
    const canvas = $('timeline');
    canvas.addEventListener('pointermove', (event) => {
      this.#pointer = event.offsetX;
      this.#tell();
    });
    canvas.addEventListener('pointerleave', () => {
      this.#pointer = undefined;
      this.#tell();
    });
    new ResizeObserver(() => {
      this.#drawnAt = -Infinity;
      wake();
    }).observe(canvas);
  }

  render({ record, now, length }) {
    const isOther = record !== this.#record;
    if (isOther || record.heard !== this.#heard) {
      this.#list(record, isOther ? Infinity : record.heard - this.#heard);
      [this.#record, this.#heard] = [record, record.heard];
      this.#drawnAt = -Infinity;
    }
    // A pixel is about a second.
    if (now - this.#drawnAt >= 1000) this.#draw(record, now, SPANS[length]);
  }

  /** It is drawn anew at the next occasion. */
  repaint() {
    this.#drawnAt = -Infinity;
  }

  #draw(record, now, length) {
    this.#drawnAt = now;
    const to = now + record.clock;
    this.#places = drawTimeline($('timeline'), {
      story: record.story,
      from: to - length,
      to,
      workers: record.app.wanted,
      tell: (reload) => reloadTold(reload, to),
    });
    this.#words(record.story, to, length);
    this.#tell();
  }

  #words({ reloads }, to, length) {
    const shown = reloads.filter((reload) => (reload.to ?? to) >= to - length).slice(-BANDS);
    const list = $('bands');
    while (list.children.length > shown.length) list.lastElementChild.remove();
    while (list.children.length < shown.length) list.append(element('li', { 'data-band': 'reload' }));
    shown.reverse().forEach((reload, at) => {
      const item = list.children[at];
      setText(item, reloadTold(reload, to));
      setAttribute(item, 'data-outcome', reload.outcome);
    });
  }

  /** What the pointer is at; else the last reload in the timeline. */
  #tell() {
    const at = this.#pointer;
    const found =
      at === undefined ? undefined : this.#places.filter(([left, right]) => at >= left && at <= right).at(-1);
    const note = $('timeline-note');
    setText(
      note,
      found ? found[2] : ($('bands').firstElementChild?.textContent ?? 'No reload in this time.'),
    );
    note.classList.toggle('faint', !found);
  }

  #list(record, news) {
    const list = $('events');
    const all = record.events.length;
    const fresh = Math.min(news, all, LISTED);
    if (fresh === Math.min(all, LISTED)) list.replaceChildren();
    const items = [];
    for (let at = 1; at <= fresh; at += 1) items.push(item(record.events.at(-at)));
    list.prepend(...items);
    while (list.children.length > LISTED) list.lastElementChild.remove();
    setText($('events-count'), all > LISTED ? `last ${grouped(LISTED)}` : grouped(all));
    list.classList.toggle('none', all === 0);
  }
}

const item = ({ at, event }) => {
  const made = element('li', { 'data-event': plain(event.event, 60), 'data-weight': weight(event) });
  made.append(
    element('time', { dateTime: new Date(at).toISOString(), title: moment(at) }, clock(at)),
    element('span', { className: 'told' }, told(event)),
  );
  const lines = Array.isArray(event.last_lines) ? event.last_lines.slice(-LAST_LINES) : [];
  if (lines.length > 0) made.append(lastLines(lines));
  return made;
};

/** What a worker wrote last, closed until somebody wants to read it. */
export const lastLines = (lines) => {
  const text = lines
    .map((line) => plain(typeof line === 'string' ? line : (line?.text ?? JSON.stringify(line)), 1000))
    .join('\n');
  return element(
    'details',
    {},
    element('summary', {}, `its ${count(lines.length, 'last line')}`),
    element('pre', {}, text),
  );
};
