/**
 * Whoever wants to be told of something.
 * @template {Record<string, any>} Events
 */
export class Emitter {
  /** @type {Map<string, Set<(value: any) => void>>} */
  #listeners = new Map();

  /**
   * Calls `listener` for every event of this name, in the order in which they happened.
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {(value: Events[Name]) => void} listener
   * @returns {() => void} ends it
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => {
      listeners.delete(listener);
    };
  }

  /**
   * @internal
   * @param {keyof Events & string} name
   */
  isHeard(name) {
    return this.#listeners.get(name)?.size;
  }

  /**
   * @internal
   * @param {keyof Events & string} name
   * @param {any} value
   */
  emit(name, value) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        // The application's fault is its own to see, and ends nothing here.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
