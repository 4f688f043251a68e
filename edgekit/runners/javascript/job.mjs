// Runs a job folder on ONNX Runtime's JavaScript API; the same file in Node.js and in a browser page.
//
// What differs between the places comes in as `place`:
//   read(name)        -> Promise<Uint8Array>, a file of the job folder
//   write(name, data) -> Promise, data is a Uint8Array
//   names             files of the job folder
//   version           key of this runtime in `ort.env.versions`
//   wasm              whether the runtime is WebAssembly
//   provider          execution provider
//   warmUp            runs of each model before anything is timed, at least
//   peakMemory()      -> Promise<bytes | null>, peak memory of the process so far
//   facts()           -> Promise<object>, whatever else the place tells
//
// `edgekit/runners/child.py` is the same program in Python and describes the format of tensor files.

const TYPES = {
  1: ['float32', Float32Array],
  2: ['uint8', Uint8Array],
  3: ['int8', Int8Array],
  6: ['int32', Int32Array],
  7: ['int64', BigInt64Array],
  9: ['bool', Uint8Array],
  10: ['float16', Uint16Array],
  11: ['float64', Float64Array],
};
const CODES = Object.fromEntries(Object.entries(TYPES).map(([code, [name]]) => [name, Number(code)]));
const WARM_UP_LIMIT_MS = 20000; // by then hot code has been through the optimizing compiler
const FEWEST_RUNS = 10;
const padded = (bytes) => bytes + ((8 - (bytes % 8)) % 8);

export function readTensors(ort, raw) {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  if (new TextDecoder().decode(raw.subarray(0, 4)) !== 'EKT1') throw new Error('a tensor file does not begin with EKT1');
  const tensors = {};
  let at = 8;
  for (let left = view.getUint32(4, true); left > 0; left--) {
    const [label, code, rank] = [0, 4, 8].map((offset) => view.getUint32(at + offset, true));
    const sizes = Array.from({ length: rank + 1 }, (_, axis) => Number(view.getBigInt64(at + 16 + 8 * axis, true)));
    const bytes = sizes.pop();
    at += 24 + 8 * rank;
    const name = new TextDecoder().decode(raw.subarray(at, at + label));
    at += padded(label);
    if (!(code in TYPES)) throw new Error(`the tensor '${name}' has type ${code}, which is not supported`);
    const [type, Values] = TYPES[code];
    tensors[name] = new ort.Tensor(type, new Values(raw.slice(at, at + bytes).buffer), sizes);
    at += padded(bytes);
  }
  return tensors;
}

const dataOf = (tensor) => new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);

export function writeTensors(tensors) {
  const entries = Object.entries(tensors).map(([name, tensor]) => [new TextEncoder().encode(name), tensor]);
  const sizeOf = ([label, tensor]) => 24 + 8 * tensor.dims.length + padded(label.length) + padded(dataOf(tensor).length);
  const raw = new Uint8Array(entries.reduce((sum, entry) => sum + sizeOf(entry), 8));
  const view = new DataView(raw.buffer);
  raw.set(new TextEncoder().encode('EKT1'));
  view.setUint32(4, entries.length, true);
  let at = 8;
  for (const [label, tensor] of entries) {
    if (!(tensor.type in CODES)) throw new Error(`an output of type ${tensor.type} is not supported`);
    const data = dataOf(tensor);
    [label.length, CODES[tensor.type], tensor.dims.length, 0].forEach((value, index) => view.setUint32(at + 4 * index, value, true));
    [...tensor.dims, data.length].forEach((value, index) => view.setBigInt64(at + 16 + 8 * index, BigInt(value), true));
    at += 24 + 8 * tensor.dims.length;
    raw.set(label, at);
    at += padded(label.length);
    raw.set(data, at);
    at += padded(data.length);
  }
  return raw;
}

export function readJob(text) {
  const job = { option: [], output: [], batch: [], point: [] };
  for (const line of text.split('\n').filter(Boolean)) {
    const [key, value] = splitOnce(line);
    if (key === 'output' || key === 'batch') job[key].push(value);
    else if (key === 'option' || key === 'point') job[key].push(splitOnce(value));
    else job[key] = value;
  }
  return job;
}

function splitOnce(text) {
  const at = text.indexOf(' ');
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

// Features of the WebAssembly engine, each seen by compiling a module that needs it.
// Source: WebAssembly 3.0 binary format (SIMD prefix 0xfd, relaxed swizzle 0x100, shared memory limit 0x03).
export function wasmFeatures() {
  const head = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  const returnsVector = [1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0];
  const probes = {
    'wasm-simd128': [...returnsVector, 10, 8, 1, 6, 0, 0x41, 0, 0xfd, 15, 11],
    'wasm-relaxed-simd': [...returnsVector, 10, 15, 1, 13, 0, 0x41, 1, 0xfd, 15, 0x41, 2, 0xfd, 15, 0xfd, 0x80, 2, 11],
  };
  if (globalThis.SharedArrayBuffer) probes['wasm-threads'] = [5, 4, 1, 3, 1, 1];
  return Object.keys(probes).filter((name) => WebAssembly.validate(new Uint8Array([...head, ...probes[name]]))).sort();
}

export async function runJob(ort, place) {
  const job = readJob(new TextDecoder().decode(await place.read('job.txt')));
  const threads = Number(job.threads);
  ort.env.logLevel = 'fatal';
  if (place.wasm) ort.env.wasm.numThreads = threads;
  const weights = await Promise.all(
    place.names.filter((name) => name.endsWith('.data')).map(async (path) => ({ path, data: await place.read(path) })),
  );

  const open = async (name) => {
    const options = {
      executionProviders: [place.provider],
      graphOptimizationLevel: 'all',
      logSeverityLevel: 4,
      extra: Object.fromEntries([...job.option, ['session.intra_op.allow_spinning', '0']]),
    };
    if (place.wasm) {
      if (weights.length) options.externalData = weights;
      return ort.InferenceSession.create(await place.read(name), options);
    }
    Object.assign(options, { intraOpNumThreads: threads, interOpNumThreads: 1 });
    return ort.InferenceSession.create(place.pathOf(name), options);
  };
  const timed = async (act) => {
    const begin = performance.now();
    const value = await act();
    return [value, performance.now() - begin];
  };

  const before = await place.peakMemory();
  // An empty model is refused, but only after the runtime was started: compiled, where it is WebAssembly.
  const [, startMs] = await timed(() => ort.InferenceSession.create(new Uint8Array(0)).catch(() => null));
  const [shipped, loadMs] = await timed(() => open(job.model));
  if (place.wasm && ort.env.wasm.numThreads !== threads) {
    throw new Error(`${threads} threads were asked for, the runtime took ${ort.env.wasm.numThreads}`);
  }
  const feeds = [];
  for (const name of job.batch) feeds.push(feedOf(shipped, readTensors(ort, await place.read(name))));

  const first = [];
  let deterministic = true;
  for (let repeat = 0; repeat < Number(job.repeats); repeat++) {
    for (const [index, feed] of feeds.entries()) {
      const found = await shipped.run(feed, job.output);
      const raw = writeTensors(Object.fromEntries(job.output.map((name) => [name, found[name]])));
      if (repeat === 0) {
        await place.write(`out/${String(index).padStart(4, '0')}.ekt`, raw);
        first.push(raw);
      } else {
        deterministic &&= same(first[index], raw);
      }
    }
  }
  const peak = await place.peakMemory();
  const baseline = job.float ? await open(job.float) : null;
  const times = [];
  for (const [index, [point, name]] of job.point.entries()) {
    const inputs = readTensors(ort, await place.read(name));
    // The engine is warmed up at the first point; at the others only the memory is.
    const [warmUp, limitMs] = index === 0
      ? [Math.max(Number(job.warm_up), place.warmUp), WARM_UP_LIMIT_MS]
      : [Number(job.warm_up), 500 * Number(job.seconds_per_point)];
    times.push({ point, ...(await timePoint(baseline, shipped, inputs, warmUp, limitMs, job)) });
  }
  const result = {
    runtime_version: ort.env.versions[place.version],
    cpu: place.cpu,
    cpu_features: wasmFeatures(),
    load_ms: loadMs,
    peak_memory_bytes: peak === null ? null : peak - before,
    deterministic,
    times,
    facts: { threads, warm_up_runs: times.map((entry) => entry.warm_up_runs), runtime_start_ms: startMs, ...(await place.facts()) },
  };
  await place.write('result.json', new TextEncoder().encode(JSON.stringify(result)));
}

function feedOf(session, inputs) {
  const missing = session.inputNames.find((name) => !(name in inputs));
  if (missing !== undefined) throw new Error(`the input '${missing}' is missing`);
  return Object.fromEntries(session.inputNames.map((name) => [name, inputs[name]]));
}

const same = (a, b) => a.length === b.length && a.every((value, index) => value === b[index]);

// Times of both sessions, in turns, milliseconds; whoever goes second changes from run to run.
async function timePoint(baseline, shipped, inputs, warmUp, limitMs, job) {
  const sessions = [baseline, shipped].filter(Boolean);
  const feeds = sessions.map((session) => feedOf(session, inputs));
  const spent = sessions.map(() => []);
  const turn = async (number, note) => {
    const order = [...sessions.keys()];
    if (number % 2) order.reverse();
    for (const which of order) {
      const start = performance.now();
      await sessions[which].run(feeds[which]);
      if (note) spent[which].push(performance.now() - start);
    }
  };
  const begin = performance.now();
  let warm = 0;
  while (warm < warmUp && performance.now() - begin < limitMs) await turn(warm++, false);
  const started = performance.now();
  for (let run = 0; run < Number(job.runs); run++) {
    if (run >= FEWEST_RUNS && performance.now() - started > 1000 * Number(job.seconds_per_point)) break;
    await turn(warm + run, true);
  }
  return { float_ms: baseline ? spent[0] : [], shipped_ms: spent.at(-1), warm_up_runs: warm };
}
