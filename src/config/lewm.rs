//! Sizes of LeWorldModel beside those of its encoder.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Fields, MAX_HIDDEN_SIZE, MAX_LAYERS, MAX_MLP_HIDDEN, ModelConfig, Positions, System, within,
};
use crate::Result;

/// What LeWorldModel has beside its encoder: a projector, an encoder of actions, a predictor and the predictor's projector, all of the
/// encoder's width.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeWmConfig {
    /// Numbers of an action block: those of all actions between two frames.
    pub action_size: usize,
    /// Most frames that the predictor sees.
    pub history: usize,
    /// Channels of the convolution over actions.
    pub action_channels: usize,
    /// Width of the hidden layer of the action encoder.
    pub action_hidden: usize,
    /// Width of the hidden layer of both projectors.
    pub projector_hidden: usize,
    /// Blocks of the predictor.
    pub layers: usize,
    /// Its attention heads.
    pub heads: usize,
    /// Width of one of them; all together need not be as wide as the tokens.
    pub head_dim: usize,
    /// Width of the hidden layer of each MLP.
    pub mlp_hidden: usize,
}

impl LeWmConfig {
    /// The published sizes, for an encoder of width `hidden` (192 there).
    pub fn published(action_size: usize, hidden: usize) -> Self {
        Self {
            action_size,
            history: 3,
            action_channels: 10,
            action_hidden: hidden.saturating_mul(4),
            projector_hidden: 2048,
            layers: 6,
            heads: 16,
            head_dim: 64,
            mlp_hidden: 2048,
        }
    }

    /// Reads `{ actionSize, history (3), actionChannels (10), actionHidden (4 · hiddenSize), projectorHidden (2048), layers (6),
    /// heads (16), headDim (64), mlpHidden (2048) }`, of which all but the first have the published defaults in parentheses.
    pub(super) fn read(object: &Map<String, Value>, hidden: usize) -> Result<Self> {
        let fields = Fields::new(object, "lewm.");
        fields.only(&[
            "actionSize",
            "history",
            "actionChannels",
            "actionHidden",
            "projectorHidden",
            "layers",
            "heads",
            "headDim",
            "mlpHidden",
        ])?;
        let action_size = fields.required(fields.size("actionSize")?, "actionSize")?;
        let published = Self::published(action_size, hidden);
        let or = |key, default| Ok(fields.size(key)?.unwrap_or(default));
        Ok(Self {
            action_size,
            history: or("history", published.history)?,
            action_channels: or("actionChannels", published.action_channels)?,
            action_hidden: or("actionHidden", published.action_hidden)?,
            projector_hidden: or("projectorHidden", published.projector_hidden)?,
            layers: or("layers", published.layers)?,
            heads: or("heads", published.heads)?,
            head_dim: or("headDim", published.head_dim)?,
            mlp_hidden: or("mlpHidden", published.mlp_hidden)?,
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        within("size of an action block", self.action_size, MAX_HIDDEN_SIZE)?;
        within("predictor's history", self.history, MAX_HISTORY)?;
        within(
            "number of action channels",
            self.action_channels,
            MAX_HIDDEN_SIZE,
        )?;
        within("action encoder's width", self.action_hidden, MAX_MLP_HIDDEN)?;
        within("projector's width", self.projector_hidden, MAX_MLP_HIDDEN)?;
        within("predictor's number of layers", self.layers, MAX_LAYERS)?;
        within("predictor's number of heads", self.heads, MAX_HIDDEN_SIZE)?;
        within("predictor's head width", self.head_dim, MAX_HIDDEN_SIZE)?;
        within(
            "predictor's width of all heads",
            self.heads * self.head_dim,
            MAX_MLP_HIDDEN,
        )?;
        within("predictor's MLP width", self.mlp_hidden, MAX_MLP_HIDDEN)
    }

    /// Width of all heads together.
    pub fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Parameters of everything but the encoder, whose width is `d`. BatchNorm's running statistics are none.
    pub(super) fn parameter_count(&self, d: u64) -> u64 {
        let linear = |d_in: u64, d_out: u64| d_in * d_out + d_out;
        let [action, channels, action_hidden, hidden, inner, mlp] = [
            self.action_size,
            self.action_channels,
            self.action_hidden,
            self.projector_hidden,
            self.inner(),
            self.mlp_hidden,
        ]
        .map(|size| size as u64);
        let projector = linear(d, hidden) + 2 * hidden + linear(hidden, d);
        let actions =
            linear(action, channels) + linear(channels, action_hidden) + linear(action_hidden, d);
        let attention = 2 * d + d * 3 * inner + linear(inner, d);
        let block = linear(d, 6 * d) + attention + 2 * d + linear(d, mlp) + linear(mlp, d);
        let predictor = self.history as u64 * d + self.layers as u64 * block + 2 * d;
        2 * projector + actions + predictor
    }
}

/// Longest history of a predictor.
const MAX_HISTORY: usize = 1 << 12;

impl ModelConfig {
    /// LeWorldModel as published for PushT: a ViT-tiny with patches of 14 pixels, and blocks of five actions of two numbers.
    pub(super) fn lewm() -> Self {
        Self {
            system: System::LeWm,
            image_size: [224, 224],
            patch_size: 14,
            channels: 3,
            frames: 1,
            tubelet: 1,
            hidden_size: 192,
            layers: 12,
            heads: 3,
            mlp_hidden: 768,
            layer_norm_eps: System::LeWm.layer_norm_eps(),
            qkv_bias: true,
            positions: Positions::Learned,
            rope_grid: None,
            predictor: None,
            lewm: Some(LeWmConfig::published(10, 192)),
        }
    }
}
