//! The pre-norm transformer block of every Meta JEPA: `x += proj(attention(norm1(x)))`, `x += fc2(gelu(fc1(norm2(x))))`.

use burn::tensor::Tensor;

use super::ops::{self, AttentionMask, BlockForm};
use super::{LayerNorm, Linear, Parameters};
use crate::Result;

/// One block of an encoder or a predictor.
#[derive(Clone, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
    recomputed: bool,
}

/// Multi-head self-attention with one fused projection to `[q | k | v]`.
#[derive(Clone, Debug)]
struct Attention {
    heads: usize,
    qkv: Linear,
    proj: Linear,
}

/// Two linear layers around the exact GELU.
#[derive(Clone, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    /// Takes the parameters `{name}.norm1.weight` … `{name}.mlp.fc2.bias`, in the original project's naming.
    pub fn take(parameters: &mut Parameters, name: &str, heads: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            norm1: parameters.norm(&format!("{name}.norm1"), eps)?,
            attention: Attention {
                heads,
                qkv: parameters.linear(&format!("{name}.attn.qkv"))?,
                proj: parameters.linear(&format!("{name}.attn.proj"))?,
            },
            norm2: parameters.norm(&format!("{name}.norm2"), eps)?,
            mlp: Mlp {
                fc1: parameters.linear(&format!("{name}.mlp.fc1"))?,
                fc2: parameters.linear(&format!("{name}.mlp.fc2"))?,
            },
            recomputed: parameters.recomputes_blocks(),
        })
    }

    /// `[batch, tokens, d]` → `[batch, tokens, d]`. `rotary` turns queries and keys: see [`ops::rotate`].
    pub fn forward(
        &self,
        x: Tensor<3>,
        rotary: Option<&Tensor<2>>,
        mask: AttentionMask,
    ) -> Tensor<3> {
        if self.recomputed {
            let layers = [
                &self.attention.qkv,
                &self.attention.proj,
                &self.mlp.fc1,
                &self.mlp.fc2,
            ];
            let norms = [&self.norm1, &self.norm2];
            let form = BlockForm {
                heads: self.attention.heads,
                eps: self.norm1.eps,
                mask,
            };
            return ops::recomputed_block(
                x,
                layers.map(|layer| (&layer.weight, &layer.bias)),
                norms.map(|norm| [&norm.weight, &norm.bias]),
                rotary,
                form,
            );
        }
        let x = self
            .attention
            .forward_onto(self.norm1.forward(x.clone()), x, rotary, mask);
        self.mlp.forward_onto(self.norm2.forward(x.clone()), x)
    }
}

impl Attention {
    fn forward_onto(
        &self,
        x: Tensor<3>,
        residual: Tensor<3>,
        rotary: Option<&Tensor<2>>,
        mask: AttentionMask,
    ) -> Tensor<3> {
        let qkv = self.qkv.forward(x);
        let qkv = match rotary {
            Some(table) => ops::rotate(qkv, table, self.heads),
            None => qkv,
        };
        let mixed = ops::self_attention(qkv, self.heads, mask);
        self.proj.forward_onto(mixed, residual)
    }
}

impl Mlp {
    fn forward_onto(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.fc2.forward_onto(self.fc1.forward_gelu(x), residual)
    }
}
