// The few things that every part does with the document. Text is only ever set as text.

export const $ = (id) => document.getElementById(id);

/** An element. Properties that it has are set, others become attributes; those that are undefined are left out. */
export const element = (name, properties = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (key in made && key !== 'role' && !key.startsWith('aria')) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
};

/** Sets the text of an element that has nothing else, if it is another one. */
export const setText = (node, text) => {
  const child = node.firstChild;
  if (!child) node.append(text);
  else if (child.data !== text) child.data = text;
};

/** Sets an attribute, or removes it, if it is another one. */
export const setAttribute = (node, name, value) => {
  if (value === undefined || value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
};

/** A figure: as it is shown, and exactly. */
export const setFigure = (node, value, shown) => {
  setText(node, shown(value));
  setAttribute(node, 'data-value', typeof value === 'number' && !Number.isFinite(value) ? undefined : value);
};

/** A worker's or an app's state: the word, and a shape beside it. */
export const setState = (node, state) => {
  setText(node, state);
  setAttribute(node, 'data-state', state.replaceAll(' ', '-'));
};

/** Puts the rows in this order, and touches those that are in their place already as little as possible. */
export const arrange = (body, rows) => {
  let next = body.firstElementChild;
  for (const row of rows) {
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
  while (next) {
    const following = next.nextElementSibling;
    next.remove();
    next = following;
  }
};

/** Says something aloud to those who do not see it. */
export const say = (text) => {
  $('outcome').textContent = text;
};
