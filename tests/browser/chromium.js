// The browser. CHROMIUM is the program.
import { chromium } from 'playwright-core';

export function launch({ args = [], ...options } = {}) {
  return chromium.launch({
    ...options,
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // As root in a container there are neither user namespaces nor much shared memory.
    args: [...args, ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), '--disable-dev-shm-usage', '--disable-gpu'],
  });
}
