//! Encoder and predictor, which all published systems share but for what the configuration's
//! [`System`](crate::config::System) decides.

pub mod attentive;
pub mod encoder;
pub mod predictor;

pub use attentive::{AttentiveProbe, ProbeConfig};
pub use encoder::{Encoder, Pictures, Tokens, read};
pub use predictor::{ContextFrom, Masked, Prediction, Predictor, predict};
