// The page of `clusterd web`: wires the stream, what is known, what is chosen, and the parts that show it.
// Each part is a module of its own; what needs no document is tested with `node --test`.

import { Apps } from './apps.js';
import { Chosen } from './chosen.js';
import { Connections } from './connections.js';
import { $, say, setAttribute, setText } from './dom.js';
import { Events } from './events.js';
import { count } from './format.js';
import { online } from './generations.js';
import { follow, setToken, takeToken } from './live.js';
import { Log } from './log.js';
import { Orders } from './orders.js';
import { readColours } from './paint.js';
import { format, parse, SPANS } from './place.js';
import { State } from './state.js';
import { plain } from './text.js';
import { Workers } from './workers.js';

/** Tables are brought up to date this often at most. */
const TABLES_MS = 250;

/** The time in milliseconds: it runs evenly, whatever is done to the clock. */
const time = () => performance.timeOrigin + performance.now();

const state = new State();
let place;
let live = 'connecting';
let frameAsked = false;
let timer;
let tablesAt = -Infinity;
let areTablesStale = true;
const stillness = matchMedia('(prefers-reduced-motion: reduce)');

const parts = {
  apps: new Apps((choice) => choose(choice)),
  chosen: new Chosen(() => wake()),
  workers: new Workers(() => stale()),
  events: new Events(() => wake()),
  log: new Log(() => wake()),
  connections: new Connections(),
  orders: new Orders(),
};

const ofRunning = document.querySelectorAll('#figures-part, .part-workers, .part-events');
const orders = Object.fromEntries([...$('orders').children].map((button) => [button.dataset.action, button]));

// One loop draws everything: it runs while something moves, and not at all while the page is hidden.

const wake = () => {
  if (frameAsked) return;
  frameAsked = true;
  requestAnimationFrame(frame);
};

const stale = () => {
  areTablesStale = true;
  wake();
};

const frame = () => {
  frameAsked = false;
  const now = time();
  if (areTablesStale && now - tablesAt >= TABLES_MS) {
    [areTablesStale, tablesAt] = [false, now];
    drawTables(now);
  }
  const record = chosenRecord();
  let next = areTablesStale ? tablesAt + TABLES_MS : Infinity;
  if (record && place.panels.workers)
    next = Math.min(next, parts.workers.drawLanes({ record, now, isStill: stillness.matches }) ?? Infinity);
  if (record && place.panels.events) {
    parts.events.render({ record, now, length: place.span });
    next = Math.min(next, now + 1000);
  }
  if (place.panels.log) parts.log.render();
  clearTimeout(timer);
  if (next < Infinity) timer = setTimeout(wake, Math.max(0, next - time()));
};

const drawTables = (now) => {
  const { home } = state;
  if (!home) return;
  const record = chosenRecord();
  const resting = record ? undefined : state.resting.find(({ name }) => name === place.name);
  const chosen = record
    ? { name: record.app.name, pid: record.pid }
    : resting && { name: resting.name, pid: undefined };
  parts.apps.render({
    state,
    chosen,
    filter: place.filter,
    now,
    address: (choice) => format({ ...place, ...choice }),
  });
  document.body.classList.toggle('many', state.apps.size + state.resting.length > 1);
  $('app').hidden = !chosen || live === 'token';
  $('gone').hidden = chosen !== undefined || place.name === undefined || live === 'token';
  setText($('gone'), `${plain(place.name, 100)} is not there any more: it has ended, or was deleted.`);
  for (const part of ofRunning) part.hidden = !record;
  $('log-part').hidden = !home.logs || !chosen;
  $('connections-part').hidden = !home.connections || !record;
  $('orders').hidden = !home.actions || !record;
  if (record) drawChosen(record, now, home);
  else if (resting) parts.chosen.renderResting(resting);
  followLog(home, record, resting);
  followConnections(home, record);
  drawTitle(record);
};

const drawChosen = (record, now, home) => {
  parts.chosen.render({ record, now });
  if (place.panels.workers) parts.workers.render({ record, now, hasActions: home.actions === true });
  for (const [action, isShown] of [
    ['stop', !record.app.stopped],
    ['start', record.app.stopped],
  ]) {
    orders[action].hidden = !isShown;
  }
  orders.fewer.disabled = record.app.wanted <= 1;
};

const followLog = (home, record, resting) => {
  const isWanted = live !== 'token' && home.logs && place.panels.log && (record || resting);
  // A log is there by its name also when the clusterd does not answer.
  const word = record ? state.wordOf(record) : undefined;
  const isShared = record && word !== record.app.name;
  const query = isShared ? { pid: record.pid } : { name: record?.app.name ?? resting?.name ?? '' };
  parts.log.follow(isWanted ? String(new URLSearchParams(query)) : undefined);
};

const followConnections = (home, record) => {
  const isWanted = live !== 'token' && home.connections && place.panels.connections && record;
  const worker = Number($('connections-worker').value);
  const one = Number.isInteger(worker) && worker > 0 ? worker : undefined;
  parts.connections.follow(isWanted ? state.wordOf(record) : undefined, one, () => {
    return one
      ? record.app.workers.find((other) => other.worker === one)?.connections_open
      : record.figures.now.open;
  });
};

const drawTitle = (record) => {
  const { home } = state;
  setText(
    $('host'),
    [home.user, home.host]
      .filter(Boolean)
      .map((text) => plain(text, 80))
      .join('@'),
  );
  setText($('version'), `clusterd ${plain(home.version, 40)}`);
  const title = record
    ? `${plain(record.app.name, 60)} ${online(record.app)}/${record.app.wanted} - clusterd`
    : 'clusterd';
  if (document.title !== title) document.title = title;
};

const chosenRecord = () => {
  const found = state.find(place.name, place.pid);
  if (found || place.name !== undefined) return found;
  return state.sorted().running[0];
};

const choose = ({ name, pid }) => {
  place = { ...place, name, pid };
  history.pushState(null, '', format(place) || location.pathname);
  if (matchMedia('(max-width: 999px)').matches)
    $('app').scrollIntoView({ behavior: stillness.matches ? 'auto' : 'smooth' });
  showPlace();
};

const change = (changed) => {
  place = { ...place, ...changed };
  history.replaceState(null, '', format(place) || location.pathname);
  showPlace();
};

const showPlace = () => {
  if ($('filter').value !== place.filter) $('filter').value = place.filter;
  for (const button of document.querySelectorAll('[data-panel]')) {
    const isOpen = place.panels[button.dataset.panel];
    setAttribute(button, 'aria-expanded', String(isOpen));
    $(button.getAttribute('aria-controls')).hidden = !isOpen;
    button.closest('.part').classList.toggle('closed', !isOpen);
  }
  for (const button of document.querySelectorAll('[data-span]'))
    setAttribute(button, 'aria-pressed', String(button.dataset.span === place.span));
  parts.events.repaint();
  [tablesAt, areTablesStale] = [-Infinity, true];
  wake();
};

const toggle = (panel) => change({ panels: { ...place.panels, [panel]: !place.panels[panel] } });

const ordered = (button) => {
  const record = chosenRecord();
  if (!record || !state.home?.actions) return;
  const row = button.closest('[data-worker]');
  const word = state.wordOf(record);
  if (row) parts.orders.ofWorker(Number(row.dataset.worker), record, word);
  else parts.orders.ofApp(button.dataset.action, record, word);
};

document.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.panel) toggle(button.dataset.panel);
  else if (button.dataset.span)
    change({ span: Object.hasOwn(SPANS, button.dataset.span) ? button.dataset.span : '10m' });
  else if (button.dataset.action && !button.closest('dialog')) ordered(button);
});

const KEYS = { w: 'workers', e: 'events', l: 'log', c: 'connections' };

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector('dialog[open]')) return;
  const isTyping = event.target.closest('input');
  if (event.key === 'Escape' && event.target === $('filter')) change({ filter: '' });
  if (isTyping) return;
  if (event.key === '/') $('filter').focus();
  else if (event.key === '?') $('help').showModal();
  else if (Object.hasOwn(KEYS, event.key)) toggle(KEYS[event.key]);
  else return;
  event.preventDefault();
});

$('filter').addEventListener('input', (event) => change({ filter: event.target.value }));
$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  $('apps').querySelector('tbody a')?.focus();
});
$('connections-worker').addEventListener('input', stale);
$('help-open').addEventListener('click', () => $('help').showModal());
$('skip').addEventListener('click', (event) => {
  event.preventDefault();
  $('main').focus();
});
window.addEventListener('popstate', () => {
  // A new address in the same tab loads nothing anew.
  if (takeToken()) goOn();
  place = parse(location.hash);
  showPlace();
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) return stale();
  parts.log.follow(undefined);
  parts.connections.follow(undefined);
});
window.addEventListener('resize', () => {
  parts.events.repaint();
  stale();
});
const repaint = () => {
  readColours();
  parts.workers.repaint();
  showPlace();
};
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', repaint);
matchMedia('(forced-colors: active)').addEventListener('change', repaint);

const LIVE_WORDS = {
  connecting: 'connecting',
  live: 'live',
  lost: 'connection lost, trying again',
  token: 'a token is needed',
};

const became = (word, wasRefused = false) => {
  if (word === 'token') $('token-refused').hidden = !wasRefused;
  if (live === word) return;
  live = word;
  document.body.dataset.live = word;
  setText($('live'), LIVE_WORDS[word]);
  $('token-form').hidden = word !== 'token';
  $('apps-part').hidden = word === 'token' || !state.home;
  if (word === 'token') $('token').focus();
  [areTablesStale, tablesAt] = [true, -Infinity];
  wake();
};

let goOn = () => {};

const tokenGiven = () => new Promise((resolve) => (goOn = resolve));

$('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  setToken($('token').value);
  $('token').value = '';
  goOn();
});

const SPOKEN = {
  'reload-started': 'Reload started',
  'reload-done': 'Reload done',
  'reload-failed': 'Reload failed',
  'worker-errored': 'A worker was given up',
};

/** What matters of the chosen app is said aloud. */
const speak = ({ pid, event }) => {
  const record = chosenRecord();
  const text = Object.hasOwn(SPOKEN, event?.event ?? '') ? SPOKEN[event.event] : undefined;
  if (text && record?.pid === pid) say(`${plain(record.app.name, 60)}: ${text}`);
};

const heard = (message) => {
  let kind;
  try {
    ({ kind } = state.apply(message, time()));
  } catch (failure) {
    // One message that makes no sense is no reason to lose the others.
    console.error(failure);
    return;
  }
  if (kind === 'home') $('apps-part').hidden = false;
  if (kind === 'event') speak(message.event);
  if (kind === 'gone' && state.apps.size === 0) say(`${count(0, 'app')} left`);
  stale();
};

takeToken();
place = parse(location.hash);
readColours();
showPlace();
follow({ heard, became, tokenGiven });
setTimeout(() => {
  if (live === 'connecting') setText($('live'), 'connecting; other tabs may have all connections');
}, 5000);
