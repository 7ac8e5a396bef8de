// The last so many of something. What comes beyond that pushes out the first.
// It knows nothing of what it holds.

export class Ring {
  #items = [];
  #first = 0;
  #most;

  constructor(most) {
    this.#most = most;
  }

  get length() {
    return this.#items.length;
  }

  push(item) {
    if (this.#items.length < this.#most) {
      this.#items.push(item);
      return;
    }
    this.#items[this.#first] = item;
    this.#first = (this.#first + 1) % this.#most;
  }

  /** The item at this place: 0 is the oldest, -1 the newest. */
  at(index) {
    const length = this.#items.length;
    const place = index < 0 ? length + index : index;
    return place < 0 || place >= length ? undefined : this.#items[(this.#first + place) % length];
  }

  *[Symbol.iterator]() {
    for (let index = 0; index < this.#items.length; index += 1) yield this.at(index);
  }
}
