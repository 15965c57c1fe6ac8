//! Layer normalisation.

use burn::tensor::Tensor;

use super::ops;

/// LayerNorm over the last axis, with biased variance.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[d]`.
    pub weight: Tensor<1>,
    /// `[d]`.
    pub bias: Tensor<1>,
    /// Added to the variance: 1e-6 in the encoders and predictors of I-JEPA and V-JEPA.
    pub eps: f64,
}

impl LayerNorm {
    /// `[.., d]` → `[.., d]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// LayerNorm without affine parameters over rows of `d` values, as prediction targets are normalised: `eps` is 1e-5 in
/// every Meta JEPA. Computed in f64.
pub fn without_affine(data: &[f32], d: usize, eps: f64) -> Vec<f32> {
    let mut out = Vec::with_capacity(data.len());
    for row in data.chunks_exact(d) {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / d as f64;
        let variance = row
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>()
            / d as f64;
        let scale = (variance + eps).sqrt().recip();
        out.extend(row.iter().map(|&v| ((f64::from(v) - mean) * scale) as f32));
    }
    out
}
