let passed = 1;
let lastWall = Date.now();
let lastSteady = performance.now();

/**
 * Milliseconds that passed, those included in which the machine slept: of the two clocks there are one may stop then,
 * and the other may be set back.
 */
export function now() {
  const wall = Date.now();
  const steady = performance.now();
  passed += Math.max(wall - lastWall, steady - lastSteady);
  lastWall = wall;
  lastSteady = steady;
  return passed;
}
