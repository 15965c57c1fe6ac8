//! JEPA in the browser. The rooms, in the order in which a picture walks through them; each may use those below it in
//! this list only, and only `wasm` knows JavaScript:
//!
//! - `wasm`: the exported functions; no maths.
//! - [`train`]: runs of training: recipes, schedules, the trainer.
//! - `model`: one file per published system.
//! - [`probe`]: what is read off embeddings: pooling, classes, signs of collapse.
//! - [`environment`]: places to act in, and recordings of what was done there. No tensors.
//! - [`world`]: planners: actions that bring a world model's prediction to a goal. No tensors.
//! - [`objective`]: losses of training and their gradients, on the host.
//! - `nn`: the parts that systems share, and the kernels under them.
//! - `device`: where the numbers are computed, and how weights are kept there.
//! - [`checkpoint`]: tensors by name, from bytes.
//! - `data`: labelled pictures from files, for the command line (feature `data`).
//! - [`input`]: pixels to normalised tensors. No tensor library.
//! - [`mask`]: which tokens are seen and which predicted.
//! - [`config`]: sizes, and every size derived from them.
//! - [`rng`]: random numbers that can be replayed.
//! - [`error`]: the one error type.
//!
//! `model`, `nn` and `device` exist with a backend's feature (`cpu` or `webgpu`) only; the others need no tensor library.
//! `wasm` exports what the features give.

pub mod checkpoint;
pub mod config;
#[cfg(feature = "data")]
pub mod data;
#[cfg(feature = "tensor")]
pub mod device;
pub mod environment;
pub mod error;
pub mod input;
pub mod mask;
#[cfg(feature = "tensor")]
pub mod model;
#[cfg(feature = "tensor")]
pub mod nn;
pub mod objective;
pub mod probe;
pub mod rng;
pub mod train;
#[cfg(target_family = "wasm")]
mod wasm;
pub mod world;

pub use error::{Error, Result};
