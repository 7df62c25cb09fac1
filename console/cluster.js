// Asks for `/ring` and `/nodes`, and tells when one of them is another than before.
import { ask } from './ask.js';

/** The coordinator reads its table once a second, and at once when it hears of a change. */
const ASK_EVERY_MS = 500;
const ANSWER_WITHIN_MS = 5_000;

/**
 * @param {{ ring: (ring: any) => void, nodes: (nodes: any[]) => void, lost: (why: string) => void, tick: () => void }} told
 */
export function follow(told) {
  let ring = '';
  let isLost = false;
  const text = async (path) => {
    const answer = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return answer.text();
  };
  const look = async () => {
    try {
      const [nodes, now] = await Promise.all([text('/nodes'), text('/ring')]);
      // Nodes first: they decide which colour is whose.
      told.nodes(JSON.parse(nodes).nodes);
      if (now !== ring) told.ring(JSON.parse((ring = now)));
      isLost = false;
    } catch (error) {
      if (!isLost) told.lost(error.message);
      isLost = true;
    }
    told.tick();
  };
  const loop = async () => {
    if (!document.hidden) await look();
    setTimeout(loop, ASK_EVERY_MS);
  };
  loop();
}

/** Where `user` is at home; nobody while there is no ready home. */
export const route = (user) => ask(`/route?userId=${encodeURIComponent(user)}`).catch(() => null);
