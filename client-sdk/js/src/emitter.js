/**
 * Whoever wants to be told of something.
 * @template {Record<string, any>} Events
 */
export class Emitter {
  /** By name, and whether it is for one event only. @type {Map<string, Map<(value: any) => void, boolean>>} */
  #listeners = new Map();

  /**
   * Calls `listener` for every event of this name, in the order in which they happened.
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {(value: Events[Name]) => void} listener
   * @returns {() => void} ends it
   */
  on(name, listener) {
    return this.#add(name, listener);
  }

  /**
   * Calls `listener` for the next event of this name.
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {(value: Events[Name]) => void} listener
   * @returns {() => void} ends it
   */
  once(name, listener) {
    return this.#add(name, listener, true);
  }

  /**
   * Ends what `on` or `once` began.
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {(value: Events[Name]) => void} listener
   */
  off(name, listener) {
    this.#of(name).delete(listener);
  }

  /** @param {string} name */
  #of(name) {
    const listeners = this.#listeners.get(name) ?? new Map();
    this.#listeners.set(name, listeners);
    return listeners;
  }

  /**
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {(value: any) => void} listener
   * @param {boolean} [once]
   */
  #add(name, listener, once = false) {
    const listeners = this.#of(name);
    // Who listens for good already still does.
    listeners.set(listener, once && (listeners.get(listener) ?? true));
    return () => this.off(name, listener);
  }

  /**
   * @internal
   * @param {keyof Events & string} name
   */
  isHeard(name) {
    return this.#of(name).size;
  }

  /**
   * @internal
   * @param {keyof Events & string} name
   * @param {any} value
   * @returns {unknown} whether anybody listened
   */
  emit(name, value) {
    const listeners = this.#of(name);
    const { size } = listeners;
    for (const [listener, once] of [...listeners]) {
      // One before it may have ended it.
      if (!listeners.has(listener)) continue;
      if (once) listeners.delete(listener);
      try {
        listener(value);
      } catch (error) {
        // The application's fault is its own to see, and ends nothing here.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    return size;
  }
}
