//! Checkpoints: from the bytes of safetensors files to the parameters of a model, tensor by tensor.
//!
//! The way through: [`safetensors::header_length`] and [`safetensors::Header::parse`] on the first bytes of each file;
//! [`Plan::new`] checks all headers against a configuration and says which byte ranges to read; an [`Assembler`] takes
//! those bytes in chunks of any size and hands out the parameters in pieces, rows by rows. No file is read here, and no
//! whole tensor is held.

mod assemble;
mod dtype;
mod names;
mod plan;
pub mod safetensors;

pub use assemble::{Assembler, Piece, assemble};
#[cfg(feature = "tensor")]
pub(crate) use dtype::reserve;
pub use dtype::{Dtype, Q8, to_f16};
pub use names::{EncoderChoice, Parameter, hugging_face, parameters, predictor_parameters};
pub use plan::{File, OTHER, Plan, Read, Selection, Slot, shards};
pub use safetensors::{Header, TensorData, TensorInfo, header_length};
