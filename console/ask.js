/**
 * Asks the coordinator and reads its answer.
 * @param {string} path
 * @param {{ method?: string, body?: any, token?: string }} [request]
 */
export async function ask(path, { method = 'GET', body, token } = {}) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers['content-type'] = 'application/json';
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: 'no-store' });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error?.message ?? `HTTP ${answer.status}`);
  return told;
}
