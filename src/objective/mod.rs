//! Training objectives: a loss and its gradient, on the host, from row-major slices of embeddings.
//!
//! - [`mod@cross_entropy`]: between scores and classes.
//! - [`distance`]: between predicted and target tokens.
//! - [`sigreg`]: how far embeddings are from an isotropic Gaussian.
//! - [`lejepa`]: the total losses of LeJEPA.
//! - [`lewm`]: the loss of LeWorldModel.
//! - [`vicreg`]: variance, invariance and covariance, as EB-JEPA has them.
//!
//! Sums are in f64, whatever computes the network. NaN and infinity in the embeddings come out in the loss.

pub mod cross_entropy;
#[cfg(test)]
mod difference;
pub mod distance;
pub mod lejepa;
pub mod lewm;
pub mod sigreg;
pub mod vicreg;

use crate::{Error, Result};

/// The number of values that `shape` asks for.
///
/// # Errors
/// [`Error::BadInput`] when an axis is empty or `data` holds another number of values.
fn checked(what: &str, data: &[f32], shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    match count {
        Some(count) if count > 0 && count == data.len() => Ok(count),
        _ => Err(Error::BadInput(format!(
            "{what} of shape {shape:?} cannot be made of {} values; pass one value for each element, and no empty axis",
            data.len()
        ))),
    }
}

/// `Σ factor · values`, as f32.
fn combined(terms: &[(f64, &[f64])]) -> Vec<f32> {
    let count = terms.first().map_or(0, |(_, values)| values.len());
    let element = |i: usize| terms.iter().map(|(factor, v)| factor * v[i]).sum::<f64>() as f32;
    (0..count).map(element).collect()
}
