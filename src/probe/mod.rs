//! What is read off embeddings: pooled tokens, classes, and signs of collapse. On the host, without a tensor library.
//!
//! - [`pool`]: tokens to one embedding per picture.
//! - [`knn`]: the class of the most similar labelled embeddings.
//! - [`linear`]: linear classifiers, in closed form or by descent.
//! - `hog`: features from before there were learned ones (feature `data`).
//! - [`monitor`]: whether embeddings of a run in training still differ.

mod dots;
#[cfg(feature = "data")]
pub mod hog;
pub mod knn;
pub mod linear;
pub mod monitor;
pub mod pool;
mod symmetric;

use crate::{Error, Result};

/// Embeddings with their classes.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// `[n, d]`, row by row.
    pub features: &'a [f32],
    /// Length of an embedding.
    pub d: usize,
    /// The class of each row, from 0 to below `classes`.
    pub labels: &'a [usize],
    /// How many classes there are.
    pub classes: usize,
}

impl Samples<'_> {
    /// # Errors
    /// [`Error::BadInput`] if there are none, if the numbers contradict each other, or if a value is not finite.
    fn check(&self) -> Result<()> {
        let n = rows(self.features, self.d)?;
        if self.labels.len() != n {
            return Err(Error::BadInput(format!(
                "There are {n} embeddings and {} labels; each needs one.",
                self.labels.len()
            )));
        }
        if let Some(label) = self.labels.iter().find(|&&label| label >= self.classes) {
            return Err(Error::BadInput(format!(
                "Label {label} is beyond the {} classes, which count from 0.",
                self.classes
            )));
        }
        Ok(())
    }
}

/// Makes scores probabilities.
pub fn softmax(scores: &mut [f32]) {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = libm::expf(*score - highest);
        total += *score;
    }
    scores.iter_mut().for_each(|score| *score /= total);
}

/// Classes that were predicted for the rows of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The class of the highest score of each row, the first of several.
    pub labels: Vec<usize>,
    /// `[n, classes]`; what they count is said where they are made.
    pub scores: Vec<f32>,
}

impl Prediction {
    /// The class of each row of scores `[n, classes]`.
    pub fn of(scores: Vec<f32>, classes: usize) -> Self {
        let best =
            |row: &[f32]| (1..classes).fold(0, |best, c| if row[c] > row[best] { c } else { best });
        Self {
            labels: scores.chunks_exact(classes).map(best).collect(),
            scores,
        }
    }

    /// The share of rows whose class is right.
    pub fn accuracy(&self, labels: &[usize]) -> f64 {
        let right = self
            .labels
            .iter()
            .zip(labels)
            .filter(|(a, b)| a == b)
            .count();
        right as f64 / self.labels.len() as f64
    }
}

/// How many rows of `d` finite values there are, one at least.
fn rows(features: &[f32], d: usize) -> Result<usize> {
    if d == 0 || features.is_empty() || !features.len().is_multiple_of(d) {
        return Err(Error::BadInput(format!(
            "{} values are no embeddings of {d} values each; give one at least, row by row.",
            features.len()
        )));
    }
    match features.iter().position(|value| !value.is_finite()) {
        None => Ok(features.len() / d),
        Some(at) => Err(Error::BadInput(format!(
            "Value {} of embedding {} is {}; embeddings must be finite. If they come from training, its learning rate is \
             too high.",
            at % d,
            at / d,
            features[at]
        ))),
    }
}
