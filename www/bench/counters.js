/** Counts WebGPU calls on this thread from now on, by wrapping the prototypes. */
export function count() {
  const calls = { dispatches: 0, submits: 0, bytesWritten: 0, pipelines: 0, readBacks: 0 };
  const wrap = (owner, method, note) => {
    const original = owner.prototype[method];
    owner.prototype[method] = function (...args) {
      note(...args);
      return original.apply(this, args);
    };
  };
  const pipeline = () => (calls.pipelines += 1);
  const dispatch = () => (calls.dispatches += 1);
  wrap(GPUComputePassEncoder, "dispatchWorkgroups", dispatch);
  wrap(GPUComputePassEncoder, "dispatchWorkgroupsIndirect", dispatch);
  wrap(GPUBuffer, "mapAsync", (mode) => (calls.readBacks += mode === GPUMapMode.READ ? 1 : 0));
  wrap(GPUQueue, "submit", () => (calls.submits += 1));
  wrap(GPUQueue, "writeBuffer", (_buffer, _offset, data, dataOffset = 0, size = undefined) => {
    const unit = data.BYTES_PER_ELEMENT ?? 1;
    calls.bytesWritten += size === undefined ? data.byteLength - dataOffset * unit : size * unit;
  });
  // The other way to upload: a buffer born mapped, filled, and copied from.
  wrap(GPUDevice, "createBuffer", ({ size, mappedAtCreation }) => (calls.bytesWritten += mappedAtCreation ? size : 0));
  wrap(GPUDevice, "createComputePipeline", pipeline);
  wrap(GPUDevice, "createComputePipelineAsync", pipeline);
  return calls;
}

/** Bytes of the buffers that are made on this thread from now on and not destroyed; one that is left to the garbage collector counts to the end. */
export function countBuffers() {
  const buffers = { bytes: 0, peakBytes: 0 };
  const alive = new WeakMap();
  const { createBuffer } = GPUDevice.prototype;
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    alive.set(buffer, descriptor.size);
    buffers.bytes += descriptor.size;
    buffers.peakBytes = Math.max(buffers.peakBytes, buffers.bytes);
    return buffer;
  };
  const { destroy } = GPUBuffer.prototype;
  GPUBuffer.prototype.destroy = function () {
    buffers.bytes -= alive.get(this) ?? 0;
    alive.delete(this);
    return destroy.call(this);
  };
  return buffers;
}
