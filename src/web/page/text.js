// What strangers have written, made fit to be shown: bounded, and without characters that steer the display.
// It touches no document.

// The same as in src/controls.rs. Tabs count here too; the two joiners stay, which Persian, Hindi and emoji need.
const CONTROLS = new RegExp(
  '[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b\\u200e\\u200f' +
    '\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}' +
    '\\u{e0000}-\\u{e0fff}]',
  'gu',
);

// Escape sequences of terminals (ECMA-48): CSI, then strings such as OSC, then the short ones.
const ESCAPES =
  /\u001b\[[0-?]*[ -/]*[@-~]|\u001b[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[ -/]*[0-~]/g;

/** At most so many characters; what is left out shows as an ellipsis. */
export const bounded = (text, limit) => {
  if (text.length <= limit) return text;
  const end = /[\ud800-\udbff]/.test(text[limit - 1]) ? limit - 1 : limit;
  return `${text.slice(0, end)}\u2026`;
};

/** A text on one line, with a blank in the place of each character that would steer the display. */
export const plain = (text, limit = 500) => {
  if (text === undefined || text === null) return '';
  return bounded(String(text).slice(0, limit + 1), limit).replace(CONTROLS, ' ');
};

/** A line of a log: colours of terminals are dropped, tabs stay. */
export const logLine = (text, limit = 4000) => {
  const short = String(text ?? '')
    .slice(0, limit * 2)
    .replace(ESCAPES, '');
  return bounded(short, limit).replace(CONTROLS, (character) => (character === '\t' ? '\t' : ' '));
};

/** A command, as it would be typed. */
export const command = (words, limit = 300) => {
  if (!Array.isArray(words)) return '';
  const typed = words.slice(0, 100).map((word) => {
    const text = String(word).slice(0, limit);
    return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
  });
  return plain(typed.join(' '), limit);
};
