// What a page has of the Node modules that TensorFlow.js' wasm backend imports and leaves alone there.
export default undefined;
