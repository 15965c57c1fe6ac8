//! Token embeddings to one embedding per picture.

use std::str::FromStr;

use crate::{Error, Result};

/// How tokens are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The mean over all tokens of the last layer: `[d]`.
    Mean,
    /// No pooling: `[tokens, d]`.
    None,
    /// The means over all tokens of the last four layers, each after the final norm, concatenated from the earliest to
    /// the last: `[4·d]`. The I-JEPA paper's second evaluation protocol.
    Last4Mean,
}

impl Pool {
    /// How many of the last layers are needed.
    pub fn layers(self) -> usize {
        match self {
            Self::Last4Mean => 4,
            _ => 1,
        }
    }

    /// # Errors
    /// [`Error::BadInput`] when a model of `layers` blocks is too shallow for this pooling.
    pub fn check(self, layers: usize) -> Result<()> {
        let needed = self.layers();
        if layers < needed {
            return Err(Error::BadInput(format!(
                "this pooling needs {needed} layers and the model has {layers}; use \"mean\" or \"none\""
            )));
        }
        Ok(())
    }
}

impl FromStr for Pool {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "mean" => Ok(Self::Mean),
            "none" => Ok(Self::None),
            "last4-mean" => Ok(Self::Last4Mean),
            _ => Err(Error::BadInput(format!(
                "pool \"{name}\" is unknown; use \"mean\", \"none\" or \"last4-mean\""
            ))),
        }
    }
}

/// The mean over tokens: `[batch, tokens, d]` → `[batch, d]`, summed in f64.
pub fn mean(data: &[f32], [_, tokens, d]: [usize; 3]) -> Vec<f32> {
    let mut means = Vec::with_capacity(data.len() / tokens);
    for picture in data.chunks_exact(tokens * d) {
        let mut sums = vec![0f64; d];
        for token in picture.chunks_exact(d) {
            sums.iter_mut()
                .zip(token)
                .for_each(|(sum, &v)| *sum += f64::from(v));
        }
        means.extend(sums.iter().map(|sum| (sum / tokens as f64) as f32));
    }
    means
}

/// Scales each row of `d` values to unit Euclidean length; a zero row stays zero.
pub fn normalize(data: &mut [f32], d: usize) {
    for row in data.chunks_exact_mut(d) {
        let length = row
            .iter()
            .map(|&v| f64::from(v).powi(2))
            .sum::<f64>()
            .sqrt();
        if length > 0.0 {
            row.iter_mut()
                .for_each(|v| *v = (f64::from(*v) / length) as f32);
        }
    }
}

/// Pools the last layers' tokens, the earliest layer first, and optionally normalises the embeddings. Returns the data
/// and its shape with a leading batch axis.
pub fn pool(
    layers: Vec<Vec<f32>>,
    shape: [usize; 3],
    how: Pool,
    unit: bool,
) -> (Vec<f32>, Vec<usize>) {
    let [batch, tokens, d] = shape;
    let (mut data, shape) = match how {
        Pool::None => (
            layers.into_iter().next_back().unwrap_or_default(),
            vec![batch, tokens, d],
        ),
        Pool::Mean | Pool::Last4Mean => {
            let means: Vec<Vec<f32>> = layers.iter().map(|layer| mean(layer, shape)).collect();
            let rows = (0..batch).flat_map(|b| {
                means
                    .iter()
                    .flat_map(move |m| m[b * d..(b + 1) * d].iter().copied())
            });
            (rows.collect(), vec![batch, means.len() * d])
        }
    };
    if unit {
        normalize(&mut data, shape[shape.len() - 1]);
    }
    (data, shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_layers_are_concatenated_per_picture() {
        let early = vec![0., 0., 2., 4., 10., 10., 10., 10.];
        let last = vec![1., 1., 3., 3., 5., 5., 7., 7.];
        let (data, shape) = pool(vec![early, last], [2, 2, 2], Pool::Last4Mean, false);
        assert_eq!(shape, [2, 4]);
        assert_eq!(data, [1., 2., 2., 2., 10., 10., 6., 6.]);
    }

    #[test]
    fn unit_rows_have_length_one_and_zero_stays_zero() {
        let (data, shape) = pool(vec![vec![3., 4., 0., 0.]], [1, 2, 2], Pool::None, true);
        assert_eq!(shape, [1, 2, 2]);
        assert_eq!(data, [0.6, 0.8, 0., 0.]);
    }
}
