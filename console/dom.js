// What the parts of the page share to read and write it.

/** The control or place with this `data-testid`. */
export const $ = (name, within = document) => within.querySelector(`[data-testid="${name}"]`);

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * An element with properties, `data` attributes and children. Text is text: nothing is read as HTML.
 * @param {string} tag
 * @param {{ data?: Record<string, string>, aria?: Record<string, string> } & Record<string, any>} [props]
 * @param {...(Node | string)} children
 */
export function h(tag, { data = {}, aria = {}, ...props } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), props);
  for (const [name, value] of Object.entries(data)) element.dataset[name] = value;
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children);
  return element;
}

/** Changes a text only if it is another: whoever reads it aloud is not told the same again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of `list` those of `items`, in their order; what stays is kept, with its focus.
 * @template T
 * @param {Element} list
 * @param {T[]} items
 * @param {(item: T) => string} keyOf
 * @param {(item: T) => HTMLElement} make
 * @param {(element: HTMLElement, item: T) => void} [update]
 */
export function keyed(list, items, keyOf, make, update) {
  const had = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let place = list.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const element = had.get(key) ?? make(item);
    had.delete(key);
    element.dataset.key = key;
    update?.(element, item);
    if (element === place) place = place.nextElementSibling;
    else list.insertBefore(element, place);
  }
  for (const gone of had.values()) gone.remove();
}

/** As often as eyes follow: several changes are shown at once, also while nobody looks. */
const SOON_MS = 30;

/** Does `work` soon, once, however often it was asked for meanwhile. */
export function soon(work) {
  let asked = 0;
  return () => {
    asked ||= setTimeout(() => {
      asked = 0;
      work();
    }, SOON_MS);
  };
}

/** Calls `done` when the form is sent, and leaves the page where it is. */
export function onSubmit(form, done) {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    done();
  });
}

/** The trimmed text of a field, which is emptied. */
export function take(input) {
  const text = input.value.trim();
  input.value = '';
  return text;
}

/** A time as people read it. */
export const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });
