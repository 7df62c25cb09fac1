// A list of messages, for rooms and for the inbox: in order, each once, own ones with what became of them.
import { clock, h, say } from './dom.js';
import { paint } from './colour.js';
import { tell } from './events.js';

/** As many as somebody reads back; older ones are in the history. */
const MESSAGES_MAX = 300;
/** What is not in its place yet comes last. */
const LAST = [Infinity];
const STATUS = { sending: 'sending…', acknowledged: 'kept', failed: 'not sent', received: '' };

/** Ids are unique per sender. */
const keyOf = ({ from, id }) => `${from} ${id}`;
/** Unique for this sender on every page, also where `crypto.randomUUID` is not (pages without TLS). */
const newId = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');
const textOf = (data) =>
  typeof data === 'string' ? data : typeof data?.text === 'string' ? data.text : JSON.stringify(data);
const isBefore = (a, b) => (a[0] === b[0] ? (a[1] ?? 0) < (b[1] ?? 0) : a[0] < b[0]);

export class Messages {
  #me;
  #order;
  #inspect;
  #items = new Map();
  #list;

  /**
   * @param {{ me: string, testid: string, label: string, order: (message: any) => number[], inspect: (message: any) => void }} how
   *   `order`: one or two numbers that grow down the list
   */
  constructor({ me, testid, label, order, inspect }) {
    this.#me = me;
    this.#order = order;
    this.#inspect = inspect;
    this.#list = h('ol', { className: 'messages', data: { testid }, aria: { label } });
    this.element = h('div', { className: 'scroll', role: 'log', tabIndex: 0, aria: { label } }, this.#list);
  }

  /** Shows a message of the stream; one of my own that waited here takes its place. */
  receive(message) {
    const item = this.#items.get(keyOf(message)) ?? this.#make(message);
    this.#place(item, this.#order(message), message);
    const isPending = item.element.dataset.status === 'sending' || item.element.dataset.status === 'failed';
    if (!isPending) return;
    this.#mark(item, message.from === this.#me ? 'acknowledged' : 'received');
  }

  /**
   * Shows a message of mine while `work` sends it, and what became of it.
   * @param {{ data: any, to?: string }} message
   * @param {(id: string) => Promise<{ at: string, cursor?: any }>} work
   */
  async send(message, work) {
    const own = { ...message, id: newId(), from: this.#me };
    const item = this.#make(own);
    this.#place(item, LAST, own);
    // It grows upwards (style.css): 0 is the end.
    this.element.scrollTop = 0;
    const run = async () => {
      this.#mark(item, 'sending');
      try {
        const ok = await work(own.id);
        this.#mark(item, 'acknowledged');
        const kept = { ...item.message, ...ok, ...ok.cursor };
        this.#place(item, this.#order(kept), kept);
      } catch (error) {
        this.#mark(item, 'failed');
        tell('failed', `${textOf(own.data)}: ${error.message}`);
      }
    };
    item.retry.onclick = run;
    await run();
  }

  /** What a receipt says of messages of mine. */
  receipt({ type, ids }) {
    for (const id of ids) {
      const item = this.#items.get(keyOf({ from: this.#me, id }));
      if (!item) continue;
      item.element.dataset.receipt = type;
      say(item.status, type);
    }
  }

  #make(message) {
    const { id, from, to, data } = message;
    const isMine = from === this.#me;
    const avatar = h('span', { className: 'avatar', aria: { hidden: 'true' } });
    paint(avatar, from);
    const item = {
      at: h('time'),
      status: h('span', { className: 'what' }),
      retry: h('button', { className: 'quiet', hidden: true, data: { testid: 'message-retry' } }, 'Send again'),
    };
    const inspect = h('button', { className: 'quiet', data: { testid: 'message-inspect' } }, 'Explain');
    inspect.onclick = () => this.#inspect(item.message);
    item.element = h(
      'li',
      { className: isMine ? 'mine' : '', data: { id, from } },
      avatar,
      h(
        'div',
        { className: 'bubble' },
        h('div', { className: 'who', hidden: isMine && !to }, to ? `to ${to}` : from),
        h('div', { className: 'text' }, textOf(data)),
        h('div', { className: 'about' }, item.at, item.status, item.retry, inspect),
      ),
    );
    if (to) item.element.dataset.to = to;
    this.#items.set(keyOf(message), item);
    this.#mark(item, isMine ? 'sending' : 'received');
    return item;
  }

  #mark(item, status) {
    item.element.dataset.status = status;
    item.retry.hidden = status !== 'failed';
    if (!item.element.dataset.receipt) say(item.status, STATUS[status]);
  }

  /** Puts it where it belongs. */
  #place(item, order, message) {
    item.message = message;
    const list = this.#list;
    if (message.at) say(item.at, clock(message.at));
    let before = list.lastElementChild;
    while (before && (before === item.element || isBefore(order, before.order))) before = before.previousElementSibling;
    item.element.order = order;
    const after = before ? before.nextElementSibling : list.firstElementChild;
    if (after !== item.element) list.insertBefore(item.element, after);
    if (list.children.length > MESSAGES_MAX) this.#forget(list.firstElementChild);
  }

  #forget(element) {
    this.#items.delete(keyOf({ from: element.dataset.from, id: element.dataset.id }));
    element.remove();
  }
}
