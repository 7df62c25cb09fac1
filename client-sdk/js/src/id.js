/** An id that no other client makes: 96 random bits, and the time. */
export const newId = () => [Date.now(), ...crypto.getRandomValues(new Uint32Array(3))].join('-');
