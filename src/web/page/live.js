// Asks the server, with the token: for the live stream, and for single answers.
// It understands no message and shows nothing.

import { ServerEvents } from './stream.js';

/** The server sends something at least every fifteen seconds. */
const SILENCE_MS = 40_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;

/** A stream that has lasted so long is begun again without a long wait. */
const LASTING_MS = 5000;

/** A page that nobody has seen for so long gives back its connection: a browser has six for all of them. */
const UNSEEN_MS = 60_000;
const KEY = 'clusterd-token';

/** Whoever has no token, or a wrong one, is asked for it. */
export class TokenNeeded extends Error {
  constructor(wasRefused) {
    super('a token is needed');
    this.wasRefused = wasRefused;
  }
}

let token = '';

/** Takes the token from the fragment, so that nobody who looks on sees it there: the browser's history
 *  keeps the address that was opened. Whether there was one. */
export const takeToken = () => {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get('token');
  if (given === null) {
    token = stored();
    return false;
  }
  fragment.delete('token');
  history.replaceState(
    null,
    '',
    `${location.pathname}${location.search}${fragment.size > 0 ? `#${fragment}` : ''}`,
  );
  setToken(given);
  return true;
};

const stored = () => {
  try {
    return sessionStorage.getItem(KEY) ?? '';
  } catch {
    return '';
  }
};

export const setToken = (given) => {
  token = given.trim();
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // A browser that keeps nothing asks again after a reload of the page.
  }
};

/** Asks the server. A refusal is an answer too; only that of the token is not. */
export const ask = async (path, options = {}) => {
  const headers = { ...options.headers, ...(token === '' ? {} : { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, {
    ...options,
    headers,
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'error',
    referrerPolicy: 'no-referrer',
  });
  if (answer.status === 401) throw new TokenNeeded(token !== '');
  return answer;
};

/** Reads an answer piece by piece, and calls `heard` with each message; until it ends, or `heard` answers false. */
export const read = async (answer, cutter, heard, touched = () => {}) => {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      touched();
      const messages = done ? cutter.end() : cutter.push(decoder.decode(value, { stream: true }));
      for (const message of messages) if (heard(message) === false) return;
      if (done) return;
    }
  } finally {
    // Whoever stops early frees the connection.
    reader.cancel().catch(() => {});
  }
};

/** Whether somebody can see the page, or will. */
const seen = () =>
  document.hidden
    ? new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }))
    : undefined;

const after = (millis) => new Promise((resolve) => setTimeout(resolve, millis));

/** Follows `/live` for ever: `heard` gets each message, `became` is told `live`, `lost` and `token`. */
export const follow = async ({ heard, became, tokenGiven }) => {
  let wait = FIRST_WAIT_MS;
  for (;;) {
    await seen();
    const began = performance.now();
    try {
      await once((message) => {
        became('live');
        heard(message);
      });
      became('lost');
    } catch (failure) {
      if (failure instanceof TokenNeeded) {
        became('token', failure.wasRefused);
        await tokenGiven();
        wait = FIRST_WAIT_MS;
        continue;
      }
      became('lost');
    }
    if (performance.now() - began > LASTING_MS) wait = FIRST_WAIT_MS;
    await after(wait * (0.75 + Math.random() / 2));
    wait = Math.min(LONGEST_WAIT_MS, wait * 2);
  }
};

const once = async (heard) => {
  const control = new AbortController();
  let timer;
  const touched = () => {
    clearTimeout(timer);
    timer = setTimeout(() => control.abort(), SILENCE_MS);
  };
  touched();
  let unseen;
  const changed = () => {
    clearTimeout(unseen);
    if (document.hidden) unseen = setTimeout(() => control.abort(), UNSEEN_MS);
  };
  document.addEventListener('visibilitychange', changed);
  try {
    const answer = await ask('/live', { signal: control.signal, headers: { Accept: 'text/event-stream' } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    await read(answer, new ServerEvents(), (text) => heard(JSON.parse(text)), touched);
  } finally {
    document.removeEventListener('visibilitychange', changed);
    clearTimeout(unseen);
    clearTimeout(timer);
    control.abort();
  }
};
