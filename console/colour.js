// Which colour means whom.

/** Told apart by those who see fewer colours, too, and visible on light and on dark. */
const NODES = [
  '#4f8ef7',
  '#f2994a',
  '#2bb673',
  '#b36ae2',
  '#e0b52e',
  '#e5567a',
  '#2fb6c6',
  '#8f7a6a',
  '#94b53a',
  '#7b83d9',
];
/** In the order in which they were first seen. */
const known = new Map();

export function ofNode(node) {
  if (!known.has(node)) known.set(node, NODES[known.size % NODES.length]);
  return known.get(node);
}

/** Dark enough for white letters on it. */
export function ofUser(user) {
  let hash = 7;
  for (const letter of user) hash = (hash * 31 + letter.codePointAt(0)) % 360;
  return `oklch(0.5 0.14 ${hash})`;
}

/** One or two letters on the user's colour, beside the name that says the same. */
export function paint(avatar, user) {
  const letters = user.split(/[^\p{L}\p{N}]+/u).filter(Boolean);
  avatar.textContent =
    letters
      .slice(0, 2)
      .map((word) => [...word][0])
      .join('')
      .toUpperCase() || '?';
  avatar.style.background = ofUser(user);
}
