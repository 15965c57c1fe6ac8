// The same encoder as an ONNX file for onnxruntime-web, in two forms:
//   "standard"  opset 20 operators only, as an exporter writes it;
//   "fused"     onnxruntime's own com.microsoft operators, as its transformer optimizer writes it.
import protobuf from "protobufjs";
import { inputShape, weights } from "./models.mjs";

// The part of onnx.proto that is needed here; field numbers are the format's.
const { root } = protobuf.parse(`
  syntax = "proto3";
  message ModelProto { int64 ir_version = 1; string producer_name = 2; GraphProto graph = 7; repeated OperatorSetIdProto opset_import = 8; }
  message OperatorSetIdProto { string domain = 1; int64 version = 2; }
  message GraphProto { repeated NodeProto node = 1; string name = 2; repeated TensorProto initializer = 5; repeated ValueInfoProto input = 11; repeated ValueInfoProto output = 12; }
  message NodeProto { repeated string input = 1; repeated string output = 2; string name = 3; string op_type = 4; repeated AttributeProto attribute = 5; string domain = 7; }
  message AttributeProto { string name = 1; float f = 2; int64 i = 3; repeated int64 ints = 8; int32 type = 20; }
  message TensorProto { repeated int64 dims = 1; int32 data_type = 2; string name = 8; bytes raw_data = 9; }
  message ValueInfoProto { string name = 1; TypeProto type = 2; }
  message TypeProto { Tensor tensor_type = 1; message Tensor { int32 elem_type = 1; Shape shape = 2; } message Shape { repeated Dim dim = 1; } message Dim { oneof value { int64 dim_value = 1; string dim_param = 2; } } }
`, { keepCase: true });
const Model = root.lookupType("ModelProto");

const FLOAT = 1;
const INT64 = 7;
const ATTRIBUTE = { FLOAT: 1, INT: 2, INTS: 7 };

const attribute = (name, value) =>
  Array.isArray(value) ? { name, ints: value, type: ATTRIBUTE.INTS }
  : Number.isInteger(value) ? { name, i: value, type: ATTRIBUTE.INT }
  : { name, f: value, type: ATTRIBUTE.FLOAT };

function transpose({ shape: [rows, columns], data }) {
  const out = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = data[r * columns + c];
  return { shape: [columns, rows], data: out };
}

/**
 * Bytes of an ONNX model: `input` [batch, 3, (T,) H, W] to `output` [batch, N, D]; `batch` is a free dimension.
 * A clip's patches are embedded by a convolution over time, rows and columns, or, where `tubelets` is "frames", by one over
 * rows and columns for each frame of a tubelet, and their sum.
 */
export function onnx(model, form, { tubelets = "conv3d", input = "pixels", output = "tokens" } = {}) {
  const { hiddenSize: d, heads, layers, tokens, grid: [times, rows, columns], frames, tubelet, patchSize, imageSize, eps } = model;
  const tensors = weights(model);
  const fused = form === "fused";
  const node = [];
  const initializer = [];

  const floats = (name, { shape, data }) => {
    initializer.push({ dims: shape, data_type: FLOAT, name, raw_data: new Uint8Array(data.buffer) });
    return name;
  };
  const ints = (name, list) => {
    initializer.push({ dims: [list.length], data_type: INT64, name, raw_data: new Uint8Array(BigInt64Array.from(list, BigInt).buffer) });
    return name;
  };
  const tensor = (name) => floats(name, tensors.get(name));
  const transposed = (name) => floats(name, transpose(tensors.get(name)));
  const op = (name, op_type, inputs, attributes = {}, outputs = [name], domain = "") => {
    node.push({ name, op_type, input: inputs, output: outputs, domain, attribute: Object.entries(attributes).map(([key, value]) => attribute(key, value)) });
    return outputs[0];
  };
  const microsoft = (name, op_type, inputs, attributes, outputs) => op(name, op_type, inputs, attributes, outputs, "com.microsoft");

  const layerNorm = (at, name, x) => op(at, "LayerNormalization", [x, tensor(`${name}.weight`), tensor(`${name}.bias`)], { axis: -1, epsilon: eps });
  const project = (at, name, x) => op(at, "MatMul", [x, transposed(`${name}.weight`)]);
  const linear = (at, name, x) => op(`${at}/biased`, "Add", [project(at, name, x), tensor(`${name}.bias`)]);
  // The residual sum, and that sum normalised: one operator in the fused form.
  const addAndNorm = (at, residual, branch, branchBias, norm) => {
    if (fused) {
      microsoft(at, "SkipLayerNormalization", [branch, residual, tensor(`${norm}.weight`), tensor(`${norm}.bias`), tensor(branchBias)], { epsilon: eps }, [at, "", "", `${at}/sum`]);
      return [`${at}/sum`, at];
    }
    const sum = op(`${at}/sum`, "Add", [residual, op(`${at}/branch`, "Add", [branch, tensor(branchBias)])]);
    return [sum, layerNorm(at, norm, sum)];
  };
  const splitHeads = (at, x, order) => op(`${at}/heads`, "Transpose", [op(`${at}/split`, "Reshape", [x, "split_heads"])], { perm: order });
  const attention = (at, name, x) => {
    if (fused) {
      const parts = ["query", "key", "value"].map((part) => project(`${at}/${part}`, `${name}.${part}`, x));
      const bias = new Float32Array(3 * d);
      ["query", "key", "value"].forEach((part, i) => bias.set(tensors.get(`${name}.${part}.bias`).data, i * d));
      return microsoft(at, "MultiHeadAttention", [...parts, floats(`${name}.bias`, { shape: [3 * d], data: bias })], { num_heads: heads });
    }
    const [q, k, v] = ["query", "key", "value"].map((part) => linear(`${at}/${part}`, `${name}.${part}`, x));
    const scaled = op(`${at}/scale`, "Mul", [splitHeads(q, q, [0, 2, 1, 3]), "attention_scale"]);
    const scores = op(`${at}/softmax`, "Softmax", [op(`${at}/scores`, "MatMul", [scaled, splitHeads(k, k, [0, 2, 3, 1])])], { axis: -1 });
    const mixed = op(`${at}/mix`, "MatMul", [scores, splitHeads(v, v, [0, 2, 1, 3])]);
    return op(at, "Reshape", [op(`${at}/merge`, "Transpose", [mixed], { perm: [0, 2, 1, 3] }), "merge_heads"]);
  };
  const gelu = (at, name, x) =>
    fused ? microsoft(at, "BiasGelu", [project(`${at}/in`, name, x), tensor(`${name}.bias`)]) : op(at, "Gelu", [linear(`${at}/in`, name, x)]);

  if (!fused) {
    ints("split_heads", [0, 0, heads, d / heads]);
    ints("merge_heads", [0, 0, d]);
    floats("attention_scale", { shape: [1], data: Float32Array.of(Math.sqrt(heads / d)) });
  }

  const embedding = "embeddings.patch_embeddings.projection";
  const convolve = (at, pixels, parameters, kernel) => op(at, "Conv", [pixels, ...parameters], { kernel_shape: kernel, strides: kernel });
  const reshape = (at, x, shape) => op(at, "Reshape", [x, ints(`${at}/shape`, shape)]);
  const embedPatches = () => {
    const patches = convolve("patches", input, [tensor(`${embedding}.weight`), tensor(`${embedding}.bias`)], [...(frames > 1 ? [tubelet] : []), patchSize, patchSize]);
    return op("sequence", "Transpose", [reshape("flat", patches, [0, d, tokens])], { perm: [0, 2, 1] });
  };
  const embedFrames = () => {
    const tubeletsFirst = op("tubelets_first", "Transpose", [reshape("tubelets", input, [0, 3, times, tubelet * imageSize * imageSize])], { perm: [0, 2, 1, 3] });
    const below = reshape("below", tubeletsFirst, [-1, 3, tubelet * imageSize, imageSize]);
    const each = Array.from({ length: tubelet }, (_, frame) => `frame${frame}`);
    op("frames", "Split", [below], { axis: 2, num_outputs: tubelet }, each);
    const { data } = tensors.get(`${embedding}.weight`);
    const size = patchSize * patchSize;
    const patches = each.map((name, frame) => {
      const weight = floats(`${embedding}.weight.${frame}`, { shape: [d, 3, patchSize, patchSize], data: data.filter((_, i) => Math.floor(i / size) % tubelet === frame) });
      return convolve(`${name}/patches`, name, frame === 0 ? [weight, tensor(`${embedding}.bias`)] : [weight], [patchSize, patchSize]);
    });
    const summed = patches.reduce((sum, patch, frame) => op(`sum${frame}`, "Add", [sum, patch]));
    const channelsLast = op("channels_last", "Transpose", [reshape("flat", summed, [-1, times, d, rows * columns])], { perm: [0, 1, 3, 2] });
    return reshape("sequence", channelsLast, [0, tokens, d]);
  };
  const sequence = tubelets === "frames" ? embedFrames() : embedPatches();
  let residual = op("positioned", "Add", [sequence, tensor("embeddings.position_embeddings")]);
  let x = layerNorm("norm0", "encoder.layer.0.layernorm_before", residual);
  for (let i = 0; i < layers; i++) {
    const name = `encoder.layer.${i}`;
    const mixed = project(`block${i}/attention/out`, `${name}.attention.output.dense`, attention(`block${i}/attention`, `${name}.attention.attention`, x));
    [residual, x] = addAndNorm(`block${i}/norm`, residual, mixed, `${name}.attention.output.dense.bias`, `${name}.layernorm_after`);
    const hidden = project(`block${i}/mlp/out`, `${name}.output.dense`, gelu(`block${i}/mlp`, `${name}.intermediate.dense`, x));
    const next = i + 1 < layers ? `encoder.layer.${i + 1}.layernorm_before` : "layernorm";
    [residual, x] = addAndNorm(i + 1 < layers ? `norm${i + 1}` : output, residual, hidden, `${name}.output.dense.bias`, next);
  }

  const value = (name, dims) => ({
    name,
    type: { tensor_type: { elem_type: FLOAT, shape: { dim: dims.map((n) => (typeof n === "string" ? { dim_param: n } : { dim_value: n })) } } },
  });
  return Model.encode({
    ir_version: 9,
    producer_name: "webjepa bench",
    opset_import: [{ domain: "", version: 20 }, { domain: "com.microsoft", version: 1 }],
    graph: {
      name: "encoder",
      node,
      initializer,
      input: [value(input, ["batch", ...inputShape(model)])],
      output: [value(output, ["batch", tokens, d])],
    },
  }).finish();
}
