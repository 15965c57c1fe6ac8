//! Encoder and predictor, which all published systems share but for what the configuration's
//! [`System`](crate::config::System) decides; LeWorldModel and V-JEPA 2-AC, which predict what actions do, and what they have in
//! common as world models.

pub mod actions;
pub mod attentive;
pub mod encoder;
pub mod lewm;
pub mod predictor;
pub mod world;

pub use actions::{ActionPredictor, Told, VJepa2Ac, encode_frames};
pub use attentive::{AttentiveProbe, PROBE_EPS, PROBE_HEADS, ProbeConfig};
pub use encoder::{Encoder, Pictures, Tokens, read};
pub use lewm::{Dynamics, LeWm};
pub use predictor::{ContextFrom, Masked, Prediction, Predictor, predict};
pub use world::{Context, Goal, WorldModel};
