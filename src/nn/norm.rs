//! Layer and batch normalisation.

use burn::tensor::{Device, Tensor, TensorData};

use super::ops;
use crate::Result;
use crate::device::read_values;

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
    /// Without affine parameters, for rows of `d`.
    pub fn plain(d: usize, eps: f64, device: &Device) -> Self {
        let all = |value: f32| ops::uploaded(TensorData::new(vec![value; d], [d]), device);
        Self {
            weight: all(1.0),
            bias: all(0.0),
            eps,
        }
    }

    /// `[.., d]` → `[.., d]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// PyTorch's default for BatchNorm.
const BATCH_EPS: f64 = 1e-5;
/// How far running statistics go towards those of a batch: PyTorch's default.
const BATCH_MOMENTUM: f64 = 0.1;

/// BatchNorm over the rows of a matrix, with gain and shift.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// `[d]`.
    weight: Tensor<1>,
    /// `[d]`.
    bias: Tensor<1>,
    /// What running statistics make of gain and shift: `y = x · factor + offset`.
    running: Option<[Tensor<1>; 2]>,
}

/// Mean and biased variance of each column of a batch, `[d]`.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// Rows of the batch.
    pub rows: usize,
    /// `[d]`.
    pub mean: Tensor<1>,
    /// `[d]`.
    pub variance: Tensor<1>,
}

impl BatchNorm {
    /// With the running mean and variance where there are some.
    pub fn new(
        weight: Tensor<1>,
        bias: Tensor<1>,
        running: Option<[Vec<f32>; 2]>,
        device: &Device,
    ) -> Self {
        let running = running.map(|[mean, variance]| {
            let upload = |values: Vec<f32>| {
                let d = values.len();
                ops::uploaded::<1>(TensorData::new(values, [d]), device)
            };
            let scale = |v: f32| (f64::from(v) + BATCH_EPS).sqrt().recip() as f32;
            let scale = upload(variance.into_iter().map(scale).collect());
            let factor = ops::multiply_add(weight.clone(), scale, None);
            let minus_mean = upload(mean.into_iter().map(|v| -v).collect());
            let offset = ops::multiply_add(factor.clone(), minus_mean, Some(bias.clone()));
            [factor, offset]
        });
        Self {
            weight,
            bias,
            running,
        }
    }

    /// By running statistics, or by those of the batch where there are none: `[rows, d]` → `[rows, d]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.running {
            Some([factor, offset]) => ops::multiply_add(x, factor.clone(), Some(offset.clone())),
            None => self.forward_batch(x).0,
        }
    }

    /// By the statistics of the batch, as in training: `[rows, d]` → `[rows, d]`.
    pub fn forward_batch(&self, x: Tensor<2>) -> (Tensor<2>, BatchStatistics) {
        let rows = x.dims()[0];
        let (y, mean, variance) = ops::batch_norm(x, &self.weight, &self.bias, BATCH_EPS);
        let statistics = BatchStatistics {
            rows,
            mean,
            variance,
        };
        (y, statistics)
    }
}

impl BatchStatistics {
    /// Moves a running mean and variance towards these, the variance towards the unbiased one of the batch; a batch of one row has none
    /// and leaves it.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::Error::Internal) when the device fails.
    pub async fn follow(self, [mean, variance]: [&mut [f32]; 2]) -> Result<()> {
        let unbiased = self.rows as f64 / (self.rows.max(2) - 1) as f64;
        let towards = |running: &mut [f32], batch: &[f32], factor: f64| {
            for (running, &batch) in running.iter_mut().zip(batch) {
                let moved = BATCH_MOMENTUM * factor * f64::from(batch);
                *running = ((1.0 - BATCH_MOMENTUM) * f64::from(*running) + moved) as f32;
            }
        };
        towards(mean, &read_values(self.mean).await?, 1.0);
        if self.rows > 1 {
            towards(variance, &read_values(self.variance).await?, unbiased);
        }
        Ok(())
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
