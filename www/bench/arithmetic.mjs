// What a case cannot do without: its multiply-adds in products of matrices, and the bytes that have to be read or written once.
// Norms, activations, softmax and the optimizer are left out, which are less than a twentieth of the arithmetic.
import { inputShape, product, shapes } from "./models.mjs";
import { shapes as trainingShapes } from "./training.mjs";

const FLOAT_BYTES = 4;
const sum = (list) => list.reduce((a, b) => a + b, 0);
const elements = (tensors) => sum(tensors.map(([, shape]) => product(shape)));

/** Multiply-adds of `tokens` tokens of one sequence in all blocks: queries, keys, values and output; scores and what they mix; the MLP. */
const blocks = (tokens, { hiddenSize: d, layers, mlpSize }) => layers * (4 * tokens * d * d + 2 * tokens * tokens * d + 2 * tokens * d * mlpSize);

/** Of a forward: `{ multiplyAdds, bytes }`, the bytes those of weights, pixels and embeddings. */
export function encoding(model, batch) {
  const { tokens, hiddenSize: d, tubelet, patchSize } = model;
  const patches = tokens * 3 * tubelet * patchSize ** 2 * d;
  return {
    multiplyAdds: batch * (patches + blocks(tokens, model)),
    bytes: FLOAT_BYTES * (elements(shapes(model)) + batch * (product(inputShape(model)) + tokens * d)),
  };
}

/**
 * Of a training step of training.mjs: `{ multiplyAdds, bytes }`. The backward pass of a product is two products of its size, but for the embedding of
 * patches, as pixels have no gradient. The bytes are those of the pixels and of the state: weights and AdamW's two moments, read and written,
 * the target encoder the same, and the position tables.
 */
export function training({ batch, imageSize, patchSize, grid, encoder, predictor, contextLength, targetLength, targets, ...task }) {
  const [d, narrow] = [encoder.hiddenSize, predictor.hiddenSize];
  const tokens = product(grid);
  const patches = (count) => count * 3 * patchSize ** 2 * d;
  const predicted = contextLength * d * narrow + targets * (blocks(contextLength + targetLength, predictor) + targetLength * narrow * d);
  const image = 3 * (blocks(contextLength, encoder) + predicted) + 2 * patches(contextLength) + patches(tokens) + blocks(tokens, encoder);

  const isTable = ([name]) => name.endsWith("pos_embed");
  const all = trainingShapes({ grid, patchSize, encoder, predictor, ...task });
  const trained = all.filter((tensor) => !isTable(tensor));
  const target = trained.filter(([name]) => name.startsWith("encoder."));
  const state = 3 * 2 * elements(trained) + 2 * elements(target) + elements(all.filter(isTable));
  return { multiplyAdds: batch * image, bytes: FLOAT_BYTES * (state + batch * 3 * imageSize ** 2) };
}
