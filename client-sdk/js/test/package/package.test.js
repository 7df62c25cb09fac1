// What would be published, as an application gets it: packed, unpacked, compiled against and loaded in each way.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

const HERE = new URL('../../', import.meta.url).pathname;
const TSC = join(HERE, 'node_modules/typescript/bin/tsc');

let app;
let packed;
before(async () => {
  app = await mkdtemp(join(tmpdir(), 'roost-package-'));
  // What `prepack` makes is there: `npm run check` made it.
  const said = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', app], { cwd: HERE });
  [packed] = JSON.parse(said);
  const home = join(app, 'node_modules/@roost/client');
  await mkdir(home, { recursive: true });
  execFileSync('tar', ['-xzf', join(app, packed.filename), '-C', home, '--strip-components=1']);
  await symlink(join(HERE, 'node_modules/react'), join(app, 'node_modules/react'));
  for (const name of ['consumer.ts', 'consumer.mts', 'consumer.cts']) {
    await cp(join(HERE, 'test/types/consumer.ts'), join(app, name));
  }
});
after(() => rm(app, { recursive: true }));

const run = (program, ...args) => {
  try {
    return execFileSync(program, args, { cwd: app, encoding: 'utf8' });
  } catch (error) {
    throw new Error(`${program} ${args.join(' ')}\n${error.stdout}${error.stderr}`);
  }
};

test('both licences are in it, as they are', async () => {
  const names = packed.files.map(({ path }) => path);
  for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) {
    assert.ok(names.includes(name), name);
    assert.equal(await readFile(join(HERE, name), 'utf8'), await readFile(join(HERE, '../..', name), 'utf8'), name);
  }
  assert.deepEqual(
    names.filter((name) => /test|node_modules|tsconfig|build/.test(name)),
    [],
  );
});

for (const [resolution, module, file] of [
  ['node10', 'commonjs', 'consumer.ts'],
  ['node16', 'node16', 'consumer.mts'],
  ['node16', 'node16', 'consumer.cts'],
  ['nodenext', 'nodenext', 'consumer.ts'],
  ['bundler', 'esnext', 'consumer.ts'],
]) {
  test(`the types work with ${resolution} in ${file}`, () => {
    const how = ['--moduleResolution', resolution, '--module', module, '--lib', 'ES2022,DOM', '--target', 'ES2022'];
    run(process.execPath, TSC, '--noEmit', '--strict', ...how, file);
  });
}

const LOOK = `
  const names = [client.Roost, client.RoostError, codes.reconnects, react.useInbox, react.useRoom].map((f) => f.name);
  const roost = new client.Roost('http://127.0.0.1:9', {});
  roost.connect().catch((error) => console.log(names.join(), error instanceof client.RoostError, error.code));`;
const SEEN = 'Roost,RoostError,reconnects,useInbox,useRoom true bad_options\n';

test('it can be required', async () => {
  const names = { client: '', codes: '/codes', react: '/react' };
  const lines = Object.entries(names).map(([name, path]) => `const ${name} = require('@roost/client${path}');`);
  await writeFile(join(app, 'look.cjs'), lines.join('\n') + LOOK);
  // A bundle's class may have another name inside.
  assert.equal(run(process.execPath, 'look.cjs').replace(/_(?=Roost)/g, ''), SEEN);
});

test('the bundle does what the sources do: no name is shortened that is also said', () => {
  const env = { ...process.env, ROOST_SDK: join(HERE, 'dist/roost.js'), NODE_TEST_CONTEXT: undefined };
  const how = { env, encoding: 'utf8', timeout: 60_000 };
  execFileSync(process.execPath, ['--test', join(HERE, 'test/unit/carrier.test.js')], how);
});

test('it can be imported', async () => {
  const names = { client: '', codes: '/codes', react: '/react' };
  const lines = Object.entries(names).map(([name, path]) => `import * as ${name} from '@roost/client${path}';`);
  await writeFile(join(app, 'look.mjs'), lines.join('\n') + LOOK);
  assert.equal(run(process.execPath, 'look.mjs'), SEEN);
});
