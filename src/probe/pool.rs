//! Token embeddings to one embedding per picture.

use std::str::FromStr;

use crate::config::{LEVELS, ModelConfig};
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
    /// No pooling, and every token as V-JEPA 2.1's predictor sees it: its four levels, each after its own norm, concatenated from the
    /// earliest to the last: `[tokens, 4·d]`.
    Levels,
}

impl Pool {
    /// How many of the last layers are needed, where it is these that are pooled.
    pub fn layers(self) -> usize {
        match self {
            Self::Last4Mean => 4,
            Self::Mean | Self::None | Self::Levels => 1,
        }
    }

    /// # Errors
    /// [`Error::BadInput`] when a model is too shallow for this pooling, or has not the levels that it is of.
    pub fn check(self, config: &ModelConfig) -> Result<()> {
        if self == Self::Levels && config.level_layers().len() != LEVELS {
            return Err(Error::BadInput(format!(
                "only V-JEPA 2.1 has levels, and the model is of the system {}; use \"none\" or \"last4-mean\"",
                config.system.name()
            )));
        }
        let (needed, layers) = (self.layers(), config.layers);
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
            "levels" => Ok(Self::Levels),
            _ => Err(Error::BadInput(format!(
                "pool \"{name}\" is unknown; use \"mean\", \"none\", \"last4-mean\" or \"levels\""
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
        // In lanes, which the compiler may not invent for floats by itself.
        let mut squares = [0.0; 4];
        let (fours, rest) = row.as_chunks::<4>();
        for values in fours.iter().map(|four| &four[..]).chain([rest]) {
            for (sum, &v) in squares.iter_mut().zip(values) {
                *sum += f64::from(v).powi(2);
            }
        }
        let length = squares.iter().sum::<f64>().sqrt();
        if length > 0.0 {
            let scale = length.recip();
            row.iter_mut()
                .for_each(|v| *v = (f64::from(*v) * scale) as f32);
        }
    }
}

/// Pools the last layers' tokens, the earliest layer first, or the levels, which are side by side already, and optionally normalises the embeddings. Returns the data
/// and its shape with a leading batch axis.
pub fn pool(
    layers: Vec<Vec<f32>>,
    shape: [usize; 3],
    how: Pool,
    unit: bool,
) -> (Vec<f32>, Vec<usize>) {
    let [batch, tokens, d] = shape;
    let (mut data, shape) = match how {
        Pool::None | Pool::Levels => (
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

    #[test]
    fn only_models_that_have_levels_give_them() {
        let model = |name| ModelConfig::preset(name).unwrap();
        let levels: Pool = "levels".parse().unwrap();
        assert_eq!(levels.check(&model("vjepa2.1-vit-base")), Ok(()));
        let refused = levels.check(&model("vjepa2-vit-base")).unwrap_err();
        assert_eq!(refused.code(), "bad-input");
        assert!(refused.to_string().contains("vjepa2"), "{refused}");
        let shallow = ModelConfig {
            layers: 3,
            ..model("vit-tiny")
        };
        let refused = Pool::Last4Mean.check(&shallow).unwrap_err();
        assert!(refused.to_string().contains("needs 4 layers"), "{refused}");
        let (data, shape) = pool(vec![vec![3., 4., 0., 2.]], [1, 1, 4], levels, false);
        assert_eq!((data, shape), (vec![3., 4., 0., 2.], vec![1, 1, 4]));
    }
}
