// Runs a job folder in Node.js: `node in_node.mjs wasm|native RUNTIME_MODULE JOB_FOLDER`.

import { readdir, readFile, rename, mkdir, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { runJob } from './job.mjs';

const [kind, runtime, folder] = process.argv.slice(2);
const wasm = kind === 'wasm';
const loaded = await import(pathToFileURL(runtime));

await mkdir(join(folder, 'out'), { recursive: true });
const place = {
  names: await readdir(folder),
  wasm,
  provider: wasm ? 'wasm' : 'cpu',
  version: wasm ? 'web' : 'node',
  cpu: cpus()[0]?.model ?? process.arch,
  warmUp: wasm ? 100 : 0, // hot WebAssembly is compiled again, optimized, while it runs
  pathOf: (name) => join(folder, name),
  read: async (name) => new Uint8Array(await readFile(join(folder, name))),
  write: async (name, data) => {
    await writeFile(join(folder, `${name}.part`), data);
    await rename(join(folder, `${name}.part`), join(folder, name));
  },
  peakMemory: async () => 1024 * Number(/VmHWM:\s*(\d+)/.exec(await readFile('/proc/self/status', 'utf8'))[1]),
  facts: async () => ({ node: process.versions.node, v8: process.versions.v8 }),
};

try {
  await runJob(loaded.default ?? loaded, place);
  process.exit(0);
} catch (error) {
  process.stderr.write(`${error?.message ?? error}\n`, () => process.exit(1));
}
