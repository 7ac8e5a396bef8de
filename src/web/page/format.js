// Numbers as they stand in a column: short, with a unit, as `clusterd monit` shows them.
// What is not known is `-`. It touches no document.

const UNKNOWN = '-';

const isKnown = (figure) => typeof figure === 'number' && Number.isFinite(figure);

const known = (shown) => (figure) => (isKnown(figure) ? shown(figure) : UNKNOWN);

/** A number with its thousands apart. */
export const grouped = known((number) =>
  Math.round(number)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ','),
);

/** A number of events a second: `0`, `0.4`, `12`, `1,203`. */
export const rate = known((perSecond) => {
  if (perSecond === 0) return '0';
  return perSecond < 9.95 ? perSecond.toFixed(1) : grouped(perSecond);
});

/** A time in seconds, with two digits: `38 us`, `1.2 ms`, `250 ms`, `3.0 s`. */
export const seconds = known((time) => {
  const [number, unit] =
    time < 0.0009995 ? [time * 1e6, 'us'] : time < 0.9995 ? [time * 1e3, 'ms'] : [time, 's'];
  return `${number.toFixed(number < 9.95 ? 1 : 0)} ${unit}`;
});

/** A length of time in at most two units: `850ms`, `9s`, `1m 1s`, `2h 5m`, `3d 4h`. */
export const span = known((millis) => {
  if (millis < 1000) return `${Math.max(0, Math.round(millis))}ms`;
  const whole = Math.floor(millis / 1000);
  const units = [
    ['d', 86400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ];
  const at = units.findIndex(([, size]) => whole >= size);
  const parts = units.slice(at, at + 2).map(([unit, size], index) => {
    const number = Math.floor((index === 0 ? whole : whole % units[at][1]) / size);
    return number > 0 ? `${number}${unit}` : '';
  });
  return parts.filter(Boolean).join(' ');
});

/** How long something runs: no part of a second, which would flicker. */
export const uptime = known((millis) => (millis < 1000 ? '0s' : span(millis)));

export const percent = known((part) => `${part.toFixed(0)}%`);

/** An amount of memory or traffic: `512B`, `45.0M`. */
export const bytes = known((amount) => {
  const power = amount < 1024 ? 0 : Math.min(6, Math.floor(Math.log2(amount) / 10));
  return power === 0 ? `${Math.round(amount)}B` : (amount / 1024 ** power).toFixed(1) + ' KMGTPE'[power];
});

export const bytesPerSecond = known((amount) => `${bytes(amount)}/s`);

export const count = (number, one, several = `${one}s`) =>
  `${grouped(number)} ${number === 1 ? one : several}`;

const two = (number) => String(number).padStart(2, '0');

export const clock = known((millis) => {
  const at = new Date(millis);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(':');
});

/** The day and the time of day: `2030-01-31 14:03:09`. */
export const moment = known((millis) => {
  const at = new Date(millis);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(millis)}`;
});
