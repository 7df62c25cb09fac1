import { $, clock, h } from './dom.js';

/** As many as somebody reads back. */
const EVENTS_MAX = 200;

const list = $('event-log');

/** How often something was missed. */
export let gaps = 0;

/**
 * Says what happened, newest first.
 * @param {'connecting' | 'connected' | 'reconnecting' | 'recovered' | 'moved' | 'gap' | 'failed' | 'node' | 'error'} event
 * @param {string} text
 */
export function tell(event, text) {
  if (event === 'gap') gaps++;
  const at = h('time', {}, clock(Date.now()));
  list.prepend(h('li', { data: { event } }, at, h('b', {}, event), h('span', {}, text)));
  if (list.children.length > EVENTS_MAX) list.lastElementChild.remove();
}

/** Carries out what somebody asked for; what goes wrong is told. */
export async function attempt(what, work) {
  try {
    return await work();
  } catch (error) {
    tell('error', `${what}: ${error.message}`);
  }
}
