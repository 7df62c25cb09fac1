// Makes dist/roost.js, the bundle that pages load by its address, and cjs, the package for `require` (and Jest), whose
// types are those of `tsc -p .`. `--check`: only compares the bundle with the one there is.
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const OUT = new URL('dist/roost.js', import.meta.url);
/** Compressed, as servers send it. */
const BYTES_MAX = 9_000;
/** By which the zlib of another machine may pack worse: what was built once is not refused there. */
const ZLIB_BYTES = 64;
/**
 * Names that only the core uses: neither frames, nor inputs, nor actions, nor the public API, nor what a browser gives
 * have a field of such a name.
 */
const INTERNAL = `
  acked act after alone answerBy answered asked at auto backoff begin carrier changed conn core due emit expires failure fatal first
  greets heard hello holds isCurrent isFullFor isHeard isRunning joined lane lastTrouble link lose missed movedOn
  notWelcome outbox own place promote quiet ready received reply requeue reset result retire retiring setState showed
  signals stage step take target ticket told until waiters wake wants watches welcomed what why withdraw writes
`;

/** A number by name, at the top level of a module. */
const CONSTANT = /^var ([A-Z_]+ = [\d_e *]+;)$/gm;

/** @param {import('esbuild').BuildOptions} how */
async function bundle(how) {
  const common = { bundle: true, format: 'esm', target: 'es2022', legalComments: 'none', write: false };
  return (await build({ ...common, ...how })).outputFiles[0].text;
}

// esbuild writes a constant where it is used only in a file without imports, and before all else: hence in two steps.
const whole = await bundle({ entryPoints: [new URL('src/index.js', import.meta.url).pathname] });
const constants = Array.from(whole.matchAll(CONSTANT), ([, constant]) => `const ${constant}\n`);
const text = await bundle({
  stdin: { contents: constants.join('') + whole.replace(CONSTANT, '') },
  minify: true,
  mangleProps: new RegExp(`^(${INTERNAL.trim().split(/\s+/).join('|')})$`),
  banner: { js: '// @roost/client, MIT OR Apache-2.0' },
});
const bytes = gzipSync(text, { level: 9 }).length;
console.log(`dist/roost.js: ${text.length} bytes, ${bytes} compressed, of at most ${BYTES_MAX}`);
const checks = process.argv.includes('--check');
if (bytes >= BYTES_MAX + (checks ? ZLIB_BYTES : 0)) throw new Error('the bundle is too large');
if (!checks) await writeFile(OUT, text);
else if (text !== (await readFile(OUT, 'utf8').catch(() => ''))) throw new Error('dist/roost.js is old: npm run build');

/** For those who cannot import. It has no part in common with src: an application uses the one or the other. */
const CJS = new URL('cjs/', import.meta.url);
await rm(CJS, { recursive: true, force: true });
await build({
  entryPoints: ['index', 'react', 'codes'].map((part) => new URL(`src/${part}.js`, import.meta.url).pathname),
  bundle: true,
  format: 'cjs',
  target: 'es2022',
  external: ['react'],
  outdir: CJS.pathname,
});
await writeFile(new URL('package.json', CJS), '{ "type": "commonjs" }\n');
await cp(new URL('types/', import.meta.url), new URL('types/', CJS), { recursive: true });
