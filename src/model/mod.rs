//! Encoder and predictor, which all published systems share but for what the configuration's
//! [`System`](crate::config::System) decides; and LeWorldModel, which predicts what actions do.

pub mod actions;
pub mod attentive;
pub mod encoder;
pub mod lewm;
pub mod predictor;

pub use actions::{ActionPredictor, Told, encode_frames};
pub use attentive::{AttentiveProbe, PROBE_EPS, PROBE_HEADS, ProbeConfig};
pub use encoder::{Encoder, Pictures, Tokens, read};
pub use lewm::{Dynamics, LeWm};
pub use predictor::{ContextFrom, Masked, Prediction, Predictor, predict};
