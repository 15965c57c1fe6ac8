// The most that a device was seen to do of two things: multiply-adds of f32 in registers, and copying memory. Results are checked, so that no
// compiler can have left the work out.

const COPIED_BYTES = 1 << 26;
const MARK_BYTES = 256;
/** Registers run out with more. */
const ACCUMULATORS = [4, 8, 12];
/** For each form of a measurement, whose compilers get better code ready meanwhile. */
const BUDGET_MS = 600;

/** Of runs that fit the budget, the fastest. */
async function fastest(run) {
  let best = Infinity;
  const start = performance.now();
  do best = Math.min(best, await run());
  while (performance.now() - start < BUDGET_MS);
  return best;
}

function check(values, expected, what) {
  values.forEach((value, i) => {
    if (value !== expected(i)) throw new Error(`${what}: place ${i} has ${value}, not ${expected(i)}`);
  });
}

/** Something else in every run, at the beginning, in the middle and at the end of what is copied. */
const marks = (run) => [0, COPIED_BYTES / 2, COPIED_BYTES - MARK_BYTES].map((offset, i) => [offset, new Uint8Array(MARK_BYTES).map((_, at) => at + 31 * i + run)]);

/** x ← x · 1 + 1, where no compiler can know the ones: exact up to 2^24. */
const wasmMultiplyAdds = async ({ multiplyAdd, memory }, accumulators) => {
  const repeats = 1 << 20;
  const ms = await fastest(() => {
    const start = performance.now();
    multiplyAdd(repeats, 1, 1);
    const ms = performance.now() - start;
    check(new Float32Array(memory.buffer, 0, 4 * accumulators), (i) => repeats + Math.floor(i / 4), "multiply-adds");
    return ms;
  });
  return (1e3 * 4 * accumulators * repeats) / ms;
};

async function wasmCopies({ copy, memory }) {
  let runs = 0;
  const ms = await fastest(() => {
    const written = marks(++runs);
    for (const [offset, bytes] of written) new Uint8Array(memory.buffer).set(bytes, offset);
    const start = performance.now();
    copy();
    const ms = performance.now() - start;
    for (const [offset, bytes] of written) check(new Uint8Array(memory.buffer, COPIED_BYTES + offset, MARK_BYTES), (i) => bytes[i], "copy");
    return ms;
  });
  return (1e3 * 2 * COPIED_BYTES) / ms;
}

async function cpu(origin) {
  const load = async (form, accumulators) => {
    const file = await fetch(`${origin}/ceilings/${form}-${accumulators}.wasm`);
    return WebAssembly.compileStreaming(file);
  };
  const form = await load("relaxed", 4).then(() => "relaxed", () => "simd");
  const rates = [];
  let copyRate;
  for (const accumulators of ACCUMULATORS) {
    const { exports } = await WebAssembly.instantiate(await load(form, accumulators));
    rates.push(await wasmMultiplyAdds(exports, accumulators));
    copyRate ??= await wasmCopies(exports);
  }
  return { multiplyAdds: Math.max(...rates), bytes: copyRate };
}

const WORKGROUP = 64;
const WORKGROUPS = 256;
const REPEATS = 1 << 12;
/** In the body of the loop, so that counting weighs little. */
const UNROLLED = 4;

/** Every invocation's sum of its accumulators, the k-th of which begins as k, after REPEATS · UNROLLED times x ← x · factors.x + factors.y. */
const multiplyAddKernel = (accumulators, step) => {
  const each = (line) => Array.from({ length: accumulators }, (_, k) => line(`x${k}`, k)).join("\n");
  return `
    @group(0) @binding(0) var<storage, read> factors: vec2f;
    @group(0) @binding(1) var<storage, read_write> sums: array<f32>;
    @compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
      let a = factors.x;
      let b = factors.y;
      ${each((x, k) => `var ${x} = f32(${k});`)}
      for (var i = 0u; i < ${REPEATS}u; i++) {
        ${Array.from({ length: UNROLLED }, () => each((x) => `${x} = ${step(x)};`)).join("\n")}
      }
      sums[id.x] = ${Array.from({ length: accumulators }, (_, k) => `x${k}`).join(" + ")};
    }`;
};

const STEPS = [(x) => `fma(${x}, a, b)`, (x) => `${x} * a + b`];

const COPY_KERNEL = `
  @group(0) @binding(0) var<storage, read> before: array<vec4f>;
  @group(0) @binding(1) var<storage, read_write> after: array<vec4f>;
  @compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3u) { after[id.x] = before[id.x]; }`;

async function webgpu() {
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter.requestDevice();
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const buffer = (size, usage = STORAGE | COPY_SRC | COPY_DST) => device.createBuffer({ size, usage });
  const timed = async (record) => {
    const encoder = device.createCommandEncoder();
    record(encoder);
    const commands = encoder.finish();
    const start = performance.now();
    device.queue.submit([commands]);
    await device.queue.onSubmittedWorkDone();
    return performance.now() - start;
  };
  const read = async (source, offset, size) => {
    const staging = buffer(size, MAP_READ | COPY_DST);
    await timed((encoder) => encoder.copyBufferToBuffer(source, offset, staging, 0, size));
    await staging.mapAsync(GPUMapMode.READ);
    const bytes = staging.getMappedRange().slice(0);
    staging.destroy();
    return bytes;
  };
  const kernel = async (code, buffers, workgroups) => {
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module: device.createShaderModule({ code }) } });
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })) });
    return (encoder) => {
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(workgroups);
      pass.end();
    };
  };

  const factors = buffer(8);
  device.queue.writeBuffer(factors, 0, new Float32Array([1, 1]));
  const invocations = WORKGROUP * WORKGROUPS;
  const sums = buffer(4 * invocations);
  const rates = [];
  for (const accumulators of ACCUMULATORS) {
    for (const step of STEPS) {
      const record = await kernel(multiplyAddKernel(accumulators, step), [factors, sums], WORKGROUPS);
      const expected = accumulators * REPEATS * UNROLLED + (accumulators * (accumulators - 1)) / 2;
      const ms = await fastest(async () => {
        const ms = await timed((encoder) => {
          encoder.clearBuffer(sums);
          record(encoder);
        });
        check(new Float32Array(await read(sums, 0, sums.size)), () => expected, "multiply-adds");
        return ms;
      });
      rates.push((1e3 * invocations * accumulators * REPEATS * UNROLLED) / ms);
    }
  }

  const [from, to] = [buffer(COPIED_BYTES), buffer(COPIED_BYTES)];
  const copyRates = [];
  for (const record of [(encoder) => encoder.copyBufferToBuffer(from, 0, to, 0, COPIED_BYTES), await kernel(COPY_KERNEL, [from, to], COPIED_BYTES / 16 / 256)]) {
    let runs = 0;
    const ms = await fastest(async () => {
      const written = marks(++runs);
      for (const [offset, bytes] of written) device.queue.writeBuffer(from, offset, bytes);
      await device.queue.onSubmittedWorkDone();
      const ms = await timed(record);
      for (const [offset, bytes] of written) check(new Uint8Array(await read(to, offset, MARK_BYTES)), (i) => bytes[i], "copy");
      return ms;
    });
    copyRates.push((1e3 * 2 * COPIED_BYTES) / ms);
  }
  device.destroy();
  return { multiplyAdds: Math.max(...rates), bytes: Math.max(...copyRates) };
}

/** Multiply-adds a second, and bytes a second, those read and those written. The CPU's are one thread's. */
export const ceilings = (device, origin) => (device === "webgpu" ? webgpu() : cpu(origin));
