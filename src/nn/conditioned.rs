//! The transformer block of a predictor that actions steer: AdaLN-zero, from "Scalable Diffusion Models with Transformers"
//! (arXiv 2212.09748), as LeWorldModel has it.

use burn::tensor::{Device, Tensor};

use super::ops::{self, AttentionMask, Rows};
use super::{LayerNorm, Linear, Parameters};
use crate::Result;

/// Numbers that a condition gives each channel: shift, scale and gate of attention, then those of the MLP.
const PARTS: usize = 6;
/// Added to the variance in the norm without parameters that the condition modulates.
const PLAIN_EPS: f64 = 1e-6;
/// Added to the variance in the norm with which attention and MLP begin: PyTorch's default.
const EPS: f64 = 1e-5;

/// A block of width `d` whose tokens see themselves and those before them. `x += gate · f(norm(x) · (1 + scale) + shift)`, of attention and
/// of the MLP, each of which begins with a norm of its own: there are two in a row.
#[derive(Clone, Debug)]
pub struct ConditionedBlock {
    modulation: Linear,
    plain: LayerNorm,
    attention_norm: LayerNorm,
    heads: usize,
    qkv: Linear,
    out: Linear,
    mlp_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// Which numbers of a condition are shifts, scales and gates, for a number of tokens.
#[derive(Clone, Debug)]
pub struct ConditionRows([Rows; PARTS]);

impl ConditionRows {
    /// For `batch` sequences of `tokens`.
    pub fn new(batch: usize, tokens: usize, device: &Device) -> Self {
        Self(std::array::from_fn(|part| {
            let of_sequence = |b: usize| -> Vec<usize> {
                let tokens = b * tokens..(b + 1) * tokens;
                tokens.map(|token| token * PARTS + part).collect()
            };
            let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
            Rows::new(&index, batch * tokens * PARTS, device)
        }))
    }
}

impl ConditionedBlock {
    /// Takes the parameters `{name}.attn.norm.weight` … `{name}.adaLN_modulation.1.bias`, in LeWorldModel's naming, of a block of
    /// width `d`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`](crate::Error::MissingTensor).
    pub fn take(
        parameters: &mut Parameters,
        name: &str,
        [d, heads]: [usize; 2],
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            modulation: parameters.linear(&format!("{name}.adaLN_modulation.1"))?,
            plain: LayerNorm::plain(d, PLAIN_EPS, device),
            attention_norm: parameters.norm(&format!("{name}.attn.norm"), EPS)?,
            heads,
            qkv: parameters.linear(&format!("{name}.attn.to_qkv"))?,
            out: parameters.linear(&format!("{name}.attn.to_out.0"))?,
            mlp_norm: parameters.norm(&format!("{name}.mlp.net.0"), EPS)?,
            fc1: parameters.linear(&format!("{name}.mlp.net.1"))?,
            fc2: parameters.linear(&format!("{name}.mlp.net.4"))?,
        })
    }

    /// `[batch, tokens, d]` → `[batch, tokens, d]`. `condition` is of the same shape, after its SiLU, and `rows` are for this number of
    /// tokens.
    pub fn forward(&self, x: Tensor<3>, condition: &Tensor<3>, rows: &ConditionRows) -> Tensor<3> {
        let [batch, tokens, d] = x.dims();
        let numbers = self.modulation.forward(condition.clone());
        let numbers = ops::reshaped(numbers, [batch, tokens * PARTS, d]);
        let part = |part: usize| ops::select(numbers.clone(), None, &rows.0[part], None);
        let modulated = |x: Tensor<3>, shift: usize| {
            let x = self.plain.forward(x);
            let shifted = ops::sum(x.clone(), part(shift));
            ops::multiply_add(x, part(shift + 1), Some(shifted))
        };
        let mixed = self.attention_norm.forward(modulated(x.clone(), 0));
        let past = AttentionMask::Causal { block: 1 };
        let mixed = ops::self_attention(self.qkv.forward(mixed), self.heads, past);
        let x = ops::multiply_add(self.out.forward(mixed), part(2), Some(x));
        let y = self.mlp_norm.forward(modulated(x.clone(), 3));
        let y = self.fc2.forward(self.fc1.forward_gelu(y));
        ops::multiply_add(y, part(5), Some(x))
    }
}
