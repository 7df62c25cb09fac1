import assert from 'node:assert/strict';
import { test } from 'node:test';
import { World } from '../simulation/world.js';

const SEEDS = Number(process.env.ROOST_SIM_SEEDS ?? 40);
const SEED = process.env.ROOST_SIM_SEED;

test('nothing is lost, nothing is doubled and the order is kept, whatever happens', () => {
  const seeds = SEED ? [Number(SEED)] : Array.from({ length: SEEDS }, (_, seed) => seed);
  const seen = { sent: 0, shown: 0, gaps: 0, epochs: 0 };
  for (const seed of seeds) {
    const world = new World(seed);
    try {
      world.run(3000);
    } catch (error) {
      throw new Error(`ROOST_SIM_SEED=${seed}: ${error.message}`, { cause: error });
    }
    seen.sent += world.sent.length;
    seen.shown += world.inbox.shown.size + world.room.shown.size;
    seen.gaps += world.inbox.gaps + world.room.gaps;
    seen.epochs += world.epoch;
  }
  if (!SEED) for (const [what, n] of Object.entries(seen)) assert.ok(n > seeds.length, `too few: ${n} ${what}`);
});
