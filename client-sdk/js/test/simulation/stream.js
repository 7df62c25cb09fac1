import assert from 'node:assert/strict';

/** A stream that is read: the inbox, or the room. */
export class Stream {
  generation = 1;
  ids = [];
  trimmed = 0;
  /** What the application has, by its own cursor, and how often it was told of a gap. */
  taken = null;
  shown = new Set();
  gaps = 0;
  toldGaps = 0;
  history = new Map([[1, this.ids]]);

  tail() {
    return { generation: this.generation, offset: this.ids.length };
  }

  /** What a session is told that shows `cursor`, and where it goes on. */
  place(cursor) {
    const tail = this.tail();
    const from = cursor ?? tail;
    const recovered = from.generation === tail.generation && from.offset >= this.trimmed && from.offset <= tail.offset;
    if (!recovered) this.toldGaps++;
    const position = recovered ? from.offset : tail.offset;
    return { position, joined: { cursor: tail, recovered, replayed: tail.offset - position, through: 'p' } };
  }

  /** A new generation begins, and some of what was there comes again. */
  lose(again) {
    const kept = this.ids.slice(Math.max(this.ids.length - again, 0));
    this.generation++;
    this.ids = kept;
    this.trimmed = 0;
    this.history.set(this.generation, kept);
    return { generation: this.generation, offset: 0 };
  }

  /** The application takes what it was told. */
  took({ name, value, ack }) {
    if (name === 'gap') {
      if (this.taken && value.from) {
        assert.equal(value.from.generation, this.taken.generation, 'a gap from elsewhere');
        this.#known(value.from.offset);
      }
      this.gaps++;
      this.taken = value.cursor;
    } else {
      const cursor = value ?? ack;
      if (this.taken) {
        assert.equal(cursor.generation, this.taken.generation, 'not the next');
        this.#known(cursor.offset - 1);
      }
      if (value) assert.ok(!this.shown.has(value.id), `${value.id} was shown twice`);
      if (value) this.shown.add(value.id);
      this.taken = { generation: cursor.generation, offset: cursor.offset };
    }
  }

  /** All after what was taken and up to `offset` were shown before, under another generation. */
  #known(offset) {
    const ids = this.history.get(this.taken.generation) ?? [];
    for (let i = this.taken.offset; i < offset; i++) assert.ok(this.shown.has(ids[i]), `${ids[i]} was passed over`);
  }

  check() {
    assert.equal(this.taken?.generation, this.generation);
    this.#known(this.ids.length);
    assert.ok(this.gaps <= this.toldGaps, 'a gap that nobody told of');
  }
}
