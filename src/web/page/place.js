// What whoever looks has chosen, as the fragment of the address keeps it. The token is not among it.
// It touches no document.

/** The parts of an app, and whether each is open unless somebody closes it. */
const PANELS = { workers: true, events: true, log: false, connections: false };

export const SPANS = { '10m': 600_000, '1h': 3_600_000 };

export const START = { name: undefined, pid: undefined, filter: '', span: '10m', panels: PANELS };

const names = (text) => (text ?? '').split(',').filter((name) => Object.hasOwn(PANELS, name));

/** What a fragment says; what it does not say is as at the start. */
export const parse = (fragment) => {
  const said = new URLSearchParams(fragment.replace(/^#/, '').slice(0, 2000));
  const pid = Number(said.get('pid'));
  const panels = { ...PANELS };
  for (const name of names(said.get('open'))) panels[name] = true;
  for (const name of names(said.get('closed'))) panels[name] = false;
  return {
    name: said.get('app') ?? undefined,
    pid: Number.isInteger(pid) && pid > 0 ? pid : undefined,
    filter: (said.get('filter') ?? '').slice(0, 100),
    span: Object.hasOwn(SPANS, said.get('span') ?? '') ? said.get('span') : START.span,
    panels,
  };
};

/** The fragment that says this: only what is not as at the start. */
export const format = ({ name, pid, filter, span, panels }) => {
  const said = new URLSearchParams();
  if (name !== undefined) said.set('app', name);
  if (pid !== undefined) said.set('pid', String(pid));
  const changed = (wanted) =>
    Object.keys(PANELS).filter((panel) => panels[panel] === wanted && PANELS[panel] !== wanted);
  for (const [word, list] of [
    ['open', changed(true)],
    ['closed', changed(false)],
  ])
    if (list.length > 0) said.set(word, list.join(','));
  if (filter !== '') said.set('filter', filter);
  if (span !== START.span) said.set('span', span);
  return said.size > 0 ? `#${said}` : '';
};

/** Whether something with these words is kept by a filter: each word of the filter is in one of them. */
export const isKept = (words, filter) => {
  const text = words.join(' ').toLowerCase();
  return filter
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
};
