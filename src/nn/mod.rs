//! The parts that every system shares. Nothing here knows a system's name.

pub mod block;
pub mod conditioned;
pub mod linear;
pub mod norm;
pub mod ops;
pub mod parameters;
pub mod patch;
pub mod positions;
pub mod rope;

pub use block::Block;
pub use linear::Linear;
pub use norm::LayerNorm;
pub use parameters::{Parameters, Value};
