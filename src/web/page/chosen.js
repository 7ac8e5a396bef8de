// The chosen app's head and its figures: what each is now, and a chart of the last five minutes.
// Its workers, events, log and connections are elsewhere.

import { $, element, setAttribute, setFigure, setState, setText } from './dom.js';
import { lengthOf } from './figures.js';
import { bytes, bytesPerSecond, clock, count, grouped, percent, rate, seconds, uptime } from './format.js';
import { online, stateOf, wordOf } from './generations.js';
import { drawChart, most } from './paint.js';
import { command, plain } from './text.js';

/** The charts: the kind, its name, how a figure is shown, and the figures with what each is called. */
const CHARTS = [
  [
    'connections',
    'Connections',
    (value) => (Number.isFinite(value) ? `${rate(value)}/s` : rate(value)),
    [['connections', '']],
  ],
  ['open', 'Open', grouped, [['open', '']]],
  [
    'queue',
    'Queue and backlog',
    grouped,
    [
      ['queued', 'queue'],
      ['backlog', 'backlog'],
    ],
  ],
  [
    'wait',
    'Queue wait',
    seconds,
    [
      ['waitHalf', 'p50'],
      ['waitMost', 'p99'],
    ],
  ],
  [
    'handoff',
    'Hand-off',
    seconds,
    [
      ['handoffHalf', 'p50'],
      ['handoffMost', 'p99'],
    ],
  ],
  [
    'duration',
    'Duration',
    seconds,
    [
      ['durationHalf', 'p50'],
      ['durationMost', 'p99'],
    ],
  ],
  [
    'bytes',
    'Traffic',
    bytesPerSecond,
    [
      ['received', 'in'],
      ['sent', 'out'],
    ],
  ],
  ['rtt', 'Round trip', seconds, [['rtt', 'p50']]],
  ['cpu', 'CPU', percent, [['cpu', '']]],
  ['memory', 'Memory', bytes, [['memory', '']]],
];

/** What has to be counted for these is not counted without being asked for. */
const lacks = ({ kind }, { app }) =>
  ['duration', 'bytes', 'rtt'].includes(kind) && app.traffic?.duration === undefined ? 'needs --connection-stats' : '';

export class Chosen {
  #charts;
  #version;
  #record;
  #hover;
  #wake;

  constructor(wake) {
    this.#wake = wake;
    this.#charts = CHARTS.map((definition) => makeChart(definition));
    $('figures').append(...this.#charts.map((chart) => chart.element));
    $('figures').addEventListener('pointermove', (event) => this.#pointed(event));
    $('figures').addEventListener('pointerleave', () => this.#setHover(undefined));
  }

  #pointed(event) {
    const canvas = event.target.closest('[data-chart]')?.querySelector('canvas');
    if (!canvas) return this.#setHover(undefined);
    const { left, width } = canvas.getBoundingClientRect();
    this.#setHover(Math.min(1, Math.max(0, 1 - (event.clientX - left) / width)));
  }

  /** Which part of a chart's length ago the moment is that the pointer is at. */
  #setHover(part) {
    this.#hover = part;
    this.#version = undefined;
    this.#wake();
  }

  render({ record, now }) {
    if (record === this.#record && record.version === this.#version) return;
    [this.#record, this.#version] = [record, record.version];
    this.#head(record);
    const { moments } = record.figures;
    const length = lengthOf(moments, now);
    setText($('figures-title'), length === 60_000 ? 'Last minute' : `Last ${length / 60_000} minutes`);
    const hovered = this.#hover === undefined ? undefined : nearest(moments, now - this.#hover * length);
    const shown = hovered ?? {
      ...record.figures.now,
      queued: record.counts.queued ?? record.figures.now.queued,
    };
    for (const chart of this.#charts) {
      const figures = chart.figures.map(([figure]) => figure);
      const greatest = most(moments, figures);
      for (const [figure, node] of chart.nodes) setFigure(node, shown[figure], chart.shown);
      setText(
        chart.most,
        hovered ? clock(hovered.at + record.clock) : greatest > 0 ? `most ${chart.shown(greatest)}` : lacks(chart, record),
      );
      drawChart(chart.canvas, { moments, figures, now, length, greatest, hover: hovered?.at });
    }
  }

  #head(record) {
    const { app } = record;
    setText($('app-name'), plain(app.name, 100));
    setState($('app-state'), stateOf(record));
    setAttribute($('app'), 'data-pid', record.pid);
    facts([
      ['as of', record.silent === undefined ? '' : 'some time ago: what follows is old'],
      ['because', plain(record.silent, 300)],
      ['workers', `${grouped(online(app))} of ${grouped(app.wanted)} online`],
      ['listens on', (app.addresses ?? []).slice(0, 8).map(address).join(', ')],
      ['accepts', app.accept === 'workers' ? 'the workers' : ''],
      ['command', command(app.command)],
      ['namespace', app.namespace === 'default' ? '' : plain(app.namespace, 60)],
      ['rejected', record.counts.rejected > 0 ? grouped(record.counts.rejected) : ''],
      ['given to another worker', record.counts.redispatched > 0 ? grouped(record.counts.redispatched) : ''],
      ['dropped by the kernel', dropped(app)],
      ['sent again', resent(app)],
      ['up', app.uptime_ms === undefined ? '' : uptime(app.uptime_ms)],
      ['pid', record.pid > 0 ? String(record.pid) : ''],
      ['clusterd', plain(app.version, 40)],
      ['reload by', plain(app.reload, 200)],
    ]);
  }

  /** An app that does not run has a name, a state, and perhaps a log. */
  renderResting(app) {
    this.#record = undefined;
    setText($('app-name'), plain(app.name, 100));
    setState($('app-state'), wordOf(app.state));
    setAttribute($('app'), 'data-pid', undefined);
    facts([]);
  }
}

const address = ({ address, worker_port: port }) => {
  const text = plain(address, 80);
  return text.endsWith(`:${port}`) ? text : `${text} (worker port ${plain(port, 10)})`;
};

const dropped = (app) => {
  const number = (app.traffic?.listen_queues ?? []).reduce((total, queue) => total + (queue.dropped ?? 0), 0);
  return number > 0 ? count(number, 'connection') : '';
};

const resent = (app) =>
  app.traffic?.retransmitted_segments > 0 ? count(app.traffic.retransmitted_segments, 'segment') : '';

const facts = (pairs) => {
  const list = $('app-facts');
  const said = pairs.filter(([, text]) => text !== '');
  const names = said.map(([name]) => name).join();
  if (list.names !== names) {
    list.names = names;
    list.replaceChildren(...said.map(([name]) => element('div', {}, element('dt', {}, name), element('dd'))));
  }
  said.forEach(([, text], at) => setText(list.children[at].lastChild, text));
};

const nearest = (moments, at) => {
  let found;
  for (const moment of moments)
    if (!found || Math.abs(moment.at - at) < Math.abs(found.at - at)) found = moment;
  return found && Math.abs(found.at - at) < 4000 ? found : undefined;
};

const makeChart = ([kind, name, shown, figures]) => {
  const nodes = figures.map(([figure]) => [
    figure,
    element('span', { className: 'value', 'data-figure': figure }),
  ]);
  const values = figures.map(([, label], at) =>
    element(
      'p',
      { className: at === 0 ? 'first' : 'second' },
      ...(label ? [element('span', { className: 'label' }, label), ' '] : []),
      nodes[at][1],
    ),
  );
  const canvas = element('canvas', { 'aria-hidden': 'true' });
  const greatest = element('span', { className: 'most' });
  const head = element('div', { className: 'figure-head' }, element('h4', {}, name), greatest);
  return {
    kind,
    element: element(
      'div',
      { className: 'figure', 'data-chart': kind },
      head,
      element('div', { className: 'values' }, ...values),
      canvas,
    ),
    canvas,
    most: greatest,
    nodes,
    figures,
    shown,
  };
};
