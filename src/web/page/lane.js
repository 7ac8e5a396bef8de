// The connections that one worker was given lately, by the tenth of a second, and when its process changed.
// It has no clock and draws nothing.

/** How long one slot is. */
export const SLOT_MS = 100;

/** How far a lane goes back. */
export const LANE_MS = 30_000;

const SLOTS = LANE_MS / SLOT_MS + 20;

export class Lane {
  #counts = new Uint32Array(SLOTS);
  #newest = -1;

  /** So many were given between these times (ms): spread evenly over the slots between them. */
  add(from, to, number) {
    const last = Math.floor(to / SLOT_MS);
    const first = Math.max(Math.min(Math.floor(from / SLOT_MS) + 1, last), last - SLOTS + 1);
    this.#advance(last);
    const slots = last - first + 1;
    for (let at = 0; at < slots; at += 1) {
      const share = Math.floor(((at + 1) * number) / slots) - Math.floor((at * number) / slots);
      // A slot that has left the ring meanwhile belongs to another time.
      if (share > 0 && first + at > this.#newest - SLOTS) this.#counts[(first + at) % SLOTS] += share;
    }
  }

  /** The number given in this slot. */
  at(slot) {
    return slot > this.#newest || slot <= this.#newest - SLOTS || slot < 0 ? 0 : this.#counts[slot % SLOTS];
  }

  /** The last slot that anything was given in. */
  get newest() {
    return this.#newest;
  }

  #advance(slot) {
    const empty = Math.min(slot - this.#newest, SLOTS);
    for (let at = 0; at < empty; at += 1) this.#counts[(slot - at) % SLOTS] = 0;
    this.#newest = Math.max(this.#newest, slot);
  }
}

/**
 * What is drawn between two slots: a column for every `step` slots, counted from the beginning of time so that columns keep
 * together while they move, as `[slot, count]`, without the empty ones.
 */
export const columns = (lane, from, to, step) => {
  const drawn = [];
  for (let slot = from - (from % step); slot <= to; slot += step) {
    let count = 0;
    for (let at = Math.max(slot, from); at < slot + step && at <= to; at += 1) count += lane.at(at);
    if (count > 0) drawn.push([slot, count]);
  }
  return drawn;
};

/** How much of a lane's height a number of connections takes: one is a dot, sixty-four and more fill it. */
export const height = (count) => Math.min(1, 0.2 + 0.8 * (Math.log2(Math.max(1, count)) / 6));
