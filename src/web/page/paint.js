// Draws on canvases: charts, sparklines, lanes, and the timeline. What it draws is in words elsewhere.
// It decides nothing about figures and has no clock.

import { clock } from './format.js';
import { columns, height, LANE_MS, SLOT_MS } from './lane.js';
import { axis } from './story.js';

const NAMES = ['ink', 'faint', 'line', 'accent', 'second', 'good', 'warn', 'bad', 'ground', 'wash'];
let colours = {};

/** Reads the colours of the page anew: the scheme may have changed. */
export const readColours = () => {
  const style = getComputedStyle(document.documentElement);
  colours = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
};

/** A canvas of its element's size in device pixels, blank, to be drawn on in CSS pixels. Nothing if it is not in sight. */
const blank = (canvas, width = canvas.clientWidth, height = canvas.clientHeight) => {
  if (width === 0 || height === 0) return undefined;
  const scale = Math.min(3, window.devicePixelRatio || 1);
  const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
  const context = (canvas.context ??= canvas.getContext('2d'));
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
};

/** Points that are further apart than this are not joined: nothing is known of what was between them. */
const GAP_MS = 4000;

/** The points of one figure of moments, in runs without a gap. */
const runs = (moments, figure, place) => {
  const found = [];
  let before = -Infinity;
  for (const { at, [figure]: value } of moments) {
    if (!Number.isFinite(value)) continue;
    if (at - before >= GAP_MS) found.push([]);
    found.at(-1).push(place(at, value));
    before = at;
  }
  return found;
};

/** A line for one figure. With a floor, what is between them is filled. */
const trace = (context, points, floor) => {
  context.beginPath();
  for (const run of points) {
    // A point without neighbours is seen as a dot.
    context.moveTo(run[0][0] - 1, run[0][1]);
    for (const [x, y] of run) context.lineTo(x, y);
  }
  context.stroke();
  if (floor === undefined) return;
  context.fillStyle = colours.wash;
  context.beginPath();
  for (const run of points) {
    context.moveTo(run[0][0], floor);
    for (const [x, y] of run) context.lineTo(x, y);
    context.lineTo(run.at(-1)[0], floor);
  }
  context.fill();
};

export const most = (moments, figures) => {
  let greatest = 0;
  for (const moment of moments)
    for (const figure of figures) if (moment[figure] > greatest) greatest = moment[figure];
  return greatest;
};

/** A chart of some figures: the first as an area, the others as lines above it. `hover` is a time that is marked. */
export const drawChart = (canvas, { moments, figures, now, length, greatest, hover }) => {
  const drawing = blank(canvas);
  if (!drawing) return;
  const { context, width, height } = drawing;
  const [top, floor] = [3, height - 1];
  const x = (at) => width - ((now - at) / length) * width;
  const y = (value) => floor - (greatest > 0 ? value / greatest : 0) * (floor - top);
  context.strokeStyle = colours.line;
  context.lineWidth = 1;
  context.beginPath();
  for (let minute = 1; minute < length / 60_000; minute += 1) {
    const line = Math.round(width - (minute * 60_000 * width) / length) + 0.5;
    context.moveTo(line, height - 4);
    context.lineTo(line, height);
  }
  context.moveTo(0, floor + 0.5);
  context.lineTo(width, floor + 0.5);
  context.stroke();
  context.lineJoin = 'round';
  figures.forEach((figure, at) => {
    context.strokeStyle = at === 0 ? colours.accent : colours.second;
    context.lineWidth = at === 0 ? 1.5 : 1.25;
    context.setLineDash(at === 0 ? [] : [3, 2]);
    trace(
      context,
      runs(moments, figure, (time, value) => [x(time), y(value)]),
      at === 0 ? floor : undefined,
    );
  });
  context.setLineDash([]);
  if (hover !== undefined) {
    context.fillStyle = colours.faint;
    context.fillRect(Math.round(x(hover)), 0, 1, height);
  }
};

/** A line without an axis, for a row of a table. */
export const drawSpark = (canvas, { moments, figure, now, length }) => {
  const drawing = blank(canvas);
  if (!drawing) return;
  const { context, width, height } = drawing;
  const greatest = most(moments, [figure]);
  context.strokeStyle = colours.accent;
  context.lineWidth = 1.25;
  context.lineJoin = 'round';
  const place = (at, value) => [
    width - ((now - at) / length) * width,
    height - 1.5 - (greatest > 0 ? value / greatest : 0) * (height - 3),
  ];
  trace(context, runs(moments, figure, place), height - 1);
};

const COLUMN_PX = 3;

/** A lane: a column for what was given in a moment. `from` and `to` bound what belongs to this generation. */
export const drawLane = (canvas, { entry, now, from, to, width, height: high, isOld }) => {
  const drawing = blank(canvas, width, high);
  if (!drawing) return;
  const { context } = drawing;
  const perSlot = width / (LANE_MS / SLOT_MS);
  const step = Math.max(1, Math.ceil(COLUMN_PX / perSlot));
  const slot = (at) => Math.floor(at / SLOT_MS);
  const x = (at) => width - ((now - at) / LANE_MS) * width;
  const [first, last] = [
    Math.max(slot(now - LANE_MS), slot(Math.max(from, 0))),
    Math.min(slot(now), slot(Math.min(to, now))),
  ];
  const wide = Math.max(1.5, Math.min(step * perSlot - 1, 5));
  context.fillStyle = isOld ? colours.faint : colours.accent;
  context.beginPath();
  for (const [column, count] of columns(entry.lane, first, last, step)) {
    const tall = Math.max(2.5, height(count) * (high - 2));
    context.rect(x(column * SLOT_MS), (high - tall) / 2, wide, tall);
  }
  context.fill();
  for (const { at, kind } of entry.marks) {
    if (at < Math.max(now - LANE_MS, from - 2000) || at > to) continue;
    context.fillStyle = kind === 'crash' ? colours.bad : colours.good;
    context.fillRect(Math.round(x(at)), 0, 1, high);
    context.fillRect(Math.round(x(at)), kind === 'crash' ? high - 3 : 0, 5, 3);
  }
};

const HATCH_PX = 6;

const hatched = (context, left, top, wide, tall) => {
  context.save();
  context.beginPath();
  context.rect(left, top, wide, tall);
  context.clip();
  context.beginPath();
  for (let at = left - tall; at < left + wide; at += HATCH_PX) {
    context.moveTo(at, top + tall);
    context.lineTo(at + tall, top);
  }
  context.stroke();
  context.restore();
};

const TRACKS = { labels: 11, reloadTop: 16, reloadHeight: 30, marksAt: 60, axis: 78 };

/** The timeline. The answer tells what is where: `[left, right, text]`, for whoever points at it. */
export const drawTimeline = (canvas, { story, from, to, workers, tell }) => {
  const drawing = blank(canvas);
  if (!drawing) return [];
  const { context, width, height } = drawing;
  const x = (at) => ((at - from) / (to - from)) * width;
  const places = [];
  context.font = '11px system-ui, sans-serif';
  drawAxis(context, { width, height, from, to, x });
  for (const stop of story.stops) {
    if ((stop.to ?? to) < from) continue;
    const [left, right] = [Math.max(0, x(stop.from)), x(stop.to ?? to)];
    context.strokeStyle = colours.line;
    hatched(context, left, TRACKS.reloadTop, right - left, TRACKS.reloadHeight);
    places.push([left, right, 'stopped']);
  }
  // The newest first: where words would overlap, those of older ones are left out.
  let room = width;
  for (const reload of story.reloads.toReversed()) {
    if ((reload.to ?? to) < from) break;
    let place;
    [place, room] = drawReload(context, { reload, to, x, workers, width, room, tell });
    places.push(place);
  }
  for (const stall of story.stalls) {
    if ((stall.to ?? to) < from) continue;
    const [left, right] = [Math.max(0, x(stall.from)), Math.max(x(stall.from) + 3, x(stall.to ?? to))];
    context.fillStyle = colours.warn;
    context.fillRect(left, TRACKS.marksAt + 7, right - left, 2);
    places.push([left, right, `worker ${stall.worker} took no connection in time`]);
  }
  for (const mark of story.marks) {
    if (mark.at < from || mark.at > to) continue;
    drawMark(context, x(mark.at), mark.weight);
    places.push([x(mark.at) - 5, x(mark.at) + 5, `${clock(mark.at)}  ${mark.text}`]);
  }
  return places;
};

const drawAxis = (context, { width, height, from, to, x }) => {
  context.lineWidth = 1;
  for (const at of axis(from, to, Math.max(2, width / 90))) {
    context.fillStyle = colours.line;
    context.fillRect(Math.round(x(at)), TRACKS.reloadTop - 4, 1, TRACKS.axis - TRACKS.reloadTop);
    context.fillStyle = colours.faint;
    const text = clock(at).slice(0, 5);
    const wide = context.measureText(text).width;
    context.fillText(text, Math.min(width - wide, Math.max(0, x(at) - wide / 2)), height - 3);
  }
  context.fillStyle = colours.line;
  context.fillRect(0, TRACKS.marksAt, width, 1);
};

/** A band: the old generation is hatched, the new one rises before it with each worker; the canary's time is marked. */
const drawReload = (context, { reload, to, x, workers, width, room, tell }) => {
  const { from, steps, canary, outcome } = reload;
  const end = reload.to ?? to;
  const [left, right] = [x(from), Math.max(x(from) + 4, x(end))];
  const { reloadTop: top, reloadHeight: tall } = TRACKS;
  const isFailed = outcome === 'failed';
  const all = Math.max(workers, reload.workers, steps.length, 1);
  context.strokeStyle = colours.faint;
  hatched(context, left, top, right - left, tall);
  context.fillStyle = isFailed ? colours.bad : colours.accent;
  steps.forEach(([at, number], index) => {
    const until = steps[index + 1]?.[0] ?? end;
    const high = (number / all) * tall;
    context.fillRect(x(at), top + tall - high, Math.max(1, x(until) - x(at)), high);
  });
  context.strokeStyle = isFailed ? colours.bad : colours.accent;
  context.strokeRect(Math.round(left) + 0.5, top + 0.5, Math.max(3, Math.round(right - left) - 1), tall - 1);
  if (canary) {
    context.fillStyle = colours.warn;
    context.fillRect(x(canary.from), top - 3, Math.max(2, x(canary.to ?? end) - x(canary.from)), 3);
  }
  const word = isFailed
    ? '\u2715 rolled back'
    : outcome === 'running'
      ? 'reloading'
      : `\u2713 ${reload.workers} replaced`;
  context.fillStyle = isFailed ? colours.bad : colours.ink;
  const wide = context.measureText(word).width;
  const wordLeft = Math.max(0, Math.min(width - wide, left));
  const isWritten = wordLeft + wide <= room && right > 0;
  if (isWritten) context.fillText(word, wordLeft, TRACKS.labels - 1);
  return [[left - 3, right + 3, tell(reload)], isWritten ? wordLeft - 8 : room];
};

/** Each weight has its own shape, around the place of its mark. */
const SHAPES = {
  bad: new Path2D('M-4-4 4 4M4-4-4 4'),
  warn: new Path2D('M0-5 5 4H-5z'),
  good: new Path2D('M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0'),
  plain: new Path2D('M-3-3h6v6h-6z'),
};

const drawMark = (context, x, weight) => {
  context.save();
  context.translate(x, TRACKS.marksAt + 0.5);
  context.lineWidth = weight === 'bad' ? 2 : 1.5;
  context.strokeStyle = weight === 'plain' ? colours.ink : colours[weight];
  context.fillStyle = weight === 'plain' ? colours.ground : colours[weight];
  if (weight !== 'bad') context.fill(SHAPES[weight]);
  if (weight === 'bad' || weight === 'plain') context.stroke(SHAPES[weight]);
  context.restore();
};
