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

/** The order of a table: a click on a head sorts by its column, another one the other way round. */
export class Order {
  #heads = new Map();
  #changed;

  constructor(by, isDown, changed) {
    [this.by, this.isDown, this.#changed] = [by, isDown, changed];
  }

  /** Lets this head sort by what it is called, the greatest first or not. */
  head(cell, name, text, isDownFirst, title) {
    const button = element('button', { className: 'sort', title }, text);
    button.addEventListener('click', () => {
      [this.by, this.isDown] = [name, this.by === name ? !this.isDown : isDownFirst];
      this.#show();
      this.#changed();
    });
    cell.append(button);
    this.#heads.set(name, cell);
    this.#show();
    return cell;
  }

  #show() {
    const direction = this.isDown ? 'descending' : 'ascending';
    for (const [name, cell] of this.#heads)
      setAttribute(cell, 'aria-sort', name === this.by ? direction : undefined);
  }

  /** The rows in this order, by what each has in the column. Those that are equal stay as they are. */
  sorted(rows, value) {
    const sign = this.isDown ? -1 : 1;
    const pairs = rows.map((row) => [value(row, this.by), row]);
    return pairs.sort(([one], [other]) => sign * compare(one, other)).map(([, row]) => row);
  }
}

const compare = (one, other) => {
  if (typeof one === 'string' && typeof other === 'string') return one.localeCompare(other);
  return (Number.isFinite(one) ? one : -1) - (Number.isFinite(other) ? other : -1);
};

/** Says something aloud to those who do not see it. */
export const say = (text) => {
  $('outcome').textContent = text;
};
