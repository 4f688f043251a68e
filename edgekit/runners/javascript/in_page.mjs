// Runs a job folder in a browser page; files, results and failures go through the server that sent the page.

import { runJob } from './job.mjs';
import * as ort from './runtime/ort.wasm.min.mjs';

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(`${path}: the server answers ${answer.status}`);
  return answer;
}
const send = (path, body) => ask(path, { method: 'POST', body });

async function browser() {
  const { fullVersionList } = await navigator.userAgentData.getHighEntropyValues(['fullVersionList']);
  const { brand, version } = fullVersionList.find((entry) => /chrom/i.test(entry.brand)) ?? fullVersionList[0];
  return `${brand} ${version}`;
}

// The server learns from this open answer that the page is alive: it breaks when the tab dies.
globalThis.alive = await ask('alive');

try {
  if (!crossOriginIsolated) throw new Error('the page is not cross-origin isolated, so it can have no threads');
  await runJob(ort, {
    names: await (await ask('names')).json(),
    wasm: true,
    provider: 'wasm',
    version: 'web',
    cpu: `${navigator.hardwareConcurrency} logical processors`,
    warmUp: 100, // hot WebAssembly is compiled again, optimized, while it runs
    read: async (name) => new Uint8Array(await (await ask(`job/${name}`)).arrayBuffer()),
    write: (name, data) => send(`job/${name}`, data),
    peakMemory: async () => (await ask('memory')).json(),
    facts: async () => ({ browser: await browser(), cross_origin_isolated: crossOriginIsolated }),
  });
} catch (error) {
  await send('failure', String(error?.message ?? error));
}
