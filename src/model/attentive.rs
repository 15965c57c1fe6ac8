//! Attentive probes: the published classifiers of frozen video embeddings.
//!
//! Self-attention blocks over all tokens (three in V-JEPA 2's probes, none in V-JEPA 1's), then a block in which one learned query
//! attends to the tokens, then a linear layer. The query is not normalised; `xattn.proj` of V-JEPA 1's files is applied by nobody.

use burn::tensor::{Device, Tensor};

use crate::nn::ops::{self, AttentionMask};
use crate::nn::{Block, LayerNorm, Linear, Parameters};
use crate::{Error, Result};

/// Added to the variance in every norm of the original projects' probes; Hugging Face has the encoder's 1e-6.
pub const PROBE_EPS: f64 = 1e-5;

/// Attention heads of V-JEPA 2's probes, whatever the encoder's, and of the encoders that V-JEPA 1 was released with.
pub const PROBE_HEADS: usize = 16;

/// Sizes of a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeConfig {
    /// Width of the tokens.
    pub hidden_size: usize,
    /// Blocks, that of the query included: 1 in V-JEPA 1, 4 in V-JEPA 2.
    pub depth: usize,
    /// Attention heads: the encoder's in V-JEPA 1 and in Hugging Face's classifiers, else see [`PROBE_HEADS`].
    pub heads: usize,
    /// Width of the hidden layer of each MLP.
    pub mlp_hidden: usize,
    /// Classes.
    pub classes: usize,
    /// See [`PROBE_EPS`].
    pub layer_norm_eps: f64,
}

impl ProbeConfig {
    /// Of width, depth, width of the MLPs and number of classes, as [`Plan::probe`](crate::checkpoint::Plan::probe) gives them.
    pub fn of(
        [hidden_size, depth, mlp_hidden, classes]: [usize; 4],
        heads: usize,
        layer_norm_eps: f64,
    ) -> Self {
        Self {
            hidden_size,
            depth,
            heads,
            mlp_hidden,
            classes,
            layer_norm_eps,
        }
    }

    /// What [`of`](Self::of) was given.
    pub fn sizes(&self) -> [usize; 4] {
        [self.hidden_size, self.depth, self.mlp_hidden, self.classes]
    }

    /// # Errors
    /// [`Error::BadConfig`] for sizes of which no probe can be made.
    pub fn check(&self) -> Result<()> {
        if self.sizes().contains(&0) {
            return Err(Error::BadConfig(format!(
                "a probe of sizes {:?} (width, depth, width of its MLPs, classes) is none: each is at least 1",
                self.sizes()
            )));
        }
        if self.heads == 0 || !self.hidden_size.is_multiple_of(self.heads) {
            return Err(Error::BadConfig(format!(
                "a probe of width {} cannot have {} heads: their number divides the width",
                self.hidden_size, self.heads
            )));
        }
        Ok(())
    }
}

/// A probe with its weights.
pub struct AttentiveProbe {
    blocks: Vec<Block>,
    query: Tensor<1>,
    heads: usize,
    norm1: LayerNorm,
    q: Linear,
    kv: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    linear: Linear,
    device: Device,
}

impl AttentiveProbe {
    /// Takes the parameters that [`probe_parameters`](crate::checkpoint::probe_parameters) lists.
    ///
    /// # Errors
    /// As [`ProbeConfig::check`]; [`Error::MissingTensor`].
    pub fn take(
        config: &ProbeConfig,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        config.check()?;
        let &ProbeConfig {
            depth,
            heads,
            layer_norm_eps: eps,
            ..
        } = config;
        const LAST: &str = "pooler.cross_attention_block";
        Ok(Self {
            blocks: (0..depth - 1)
                .map(|i| Block::take(parameters, &format!("pooler.blocks.{i}"), heads, eps))
                .collect::<Result<_>>()?,
            query: parameters.vector("pooler.query_tokens")?,
            heads,
            norm1: parameters.norm(&format!("{LAST}.norm1"), eps)?,
            q: parameters.linear(&format!("{LAST}.xattn.q"))?,
            kv: parameters.linear(&format!("{LAST}.xattn.kv"))?,
            norm2: parameters.norm(&format!("{LAST}.norm2"), eps)?,
            fc1: parameters.linear(&format!("{LAST}.mlp.fc1"))?,
            fc2: parameters.linear(&format!("{LAST}.mlp.fc2"))?,
            linear: parameters.linear("linear")?,
            device: device.clone(),
        })
    }

    /// What the query makes of the tokens: `[batch, tokens, d]` → `[batch, d]`.
    pub fn pooled(&self, mut tokens: Tensor<3>) -> Tensor<2> {
        for block in &self.blocks {
            tokens = block.forward(tokens, None, AttentionMask::Full);
        }
        let [batch, _, d] = tokens.dims();
        let query = ops::reshaped(self.query.clone(), [1, d]);
        let kv = self.kv.forward(self.norm1.forward(tokens));
        let attended = ops::attend(ops::reshaped(self.q.forward(query), [d]), kv, self.heads);
        let x = ops::sum(
            ops::repeated(self.query.clone(), batch, &self.device),
            attended,
        );
        let hidden = self.fc1.forward_gelu(self.norm2.forward(x.clone()));
        self.fc2.forward_onto(hidden, x)
    }

    /// The score of each class, `[batch, classes]`, of what [`pooled`](Self::pooled) gives.
    pub fn scores(&self, pooled: Tensor<2>) -> Tensor<2> {
        self.linear.forward(pooled)
    }
}
