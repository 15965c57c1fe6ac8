//! Variance, invariance and covariance of embeddings, as EB-JEPA has them. Against collapse without a Gaussian: every
//! dimension keeps its spread, and no two say the same.

use super::{checked, combined};
use crate::{Error, Result};

/// A loss and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The loss.
    pub value: f64,
    /// Of `value` with respect to the embeddings, in their layout.
    pub gradient: Vec<f32>,
}

/// VICReg of two views. The defaults are EB-JEPA's for pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VicReg {
    /// The weight of the hinge on the standard deviation, which is summed over both views.
    pub std_coefficient: f64,
    /// The weight of the covariance, which is summed over both views.
    pub cov_coefficient: f64,
    /// The weight of the invariance.
    pub inv_coefficient: f64,
    /// The spread.
    pub hinge: Hinge,
}

/// Which standard deviation is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hinge {
    /// Above this a dimension is left alone.
    pub margin: f64,
    /// Added to the variance under the root; greater than 0, so that the slope stays finite.
    pub eps: f64,
}

impl Default for Hinge {
    fn default() -> Self {
        Self {
            margin: 1.0,
            eps: 1e-4,
        }
    }
}

impl Default for VicReg {
    fn default() -> Self {
        Self {
            std_coefficient: 1.0,
            cov_coefficient: 100.0,
            inv_coefficient: 1.0,
            hinge: Hinge::default(),
        }
    }
}

/// The loss of two views, its terms before they are weighted, and its gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// What is minimised.
    pub loss: f64,
    /// The mean square difference of the views.
    pub invariance: f64,
    /// The hinge, summed over both views.
    pub std: f64,
    /// The covariance, summed over both views.
    pub cov: f64,
    /// Of `loss` with respect to each view, `[n, d]`.
    pub gradients: [Vec<f32>; 2],
}

impl VicReg {
    /// The loss of two views of the same `n` pictures, each `[n, d]`.
    ///
    /// # Errors
    /// [`Error::BadConfig`] when a constant is out of its range; [`Error::BadInput`] when a view is not `[n, d]` or `n`
    /// is 1, which has no variance.
    pub fn evaluate(&self, first: &[f32], second: &[f32], shape: [usize; 2]) -> Result<Losses> {
        for (name, coefficient) in [
            ("std", self.std_coefficient),
            ("cov", self.cov_coefficient),
            ("inv", self.inv_coefficient),
        ] {
            if !(coefficient >= 0.0 && coefficient.is_finite()) {
                return Err(Error::BadConfig(format!(
                    "VICReg: the weight of {name} is {coefficient}; use 0 or more"
                )));
            }
        }
        let views = [Batch::new(first, shape)?, Batch::new(second, shape)?];
        let mut losses = Losses {
            loss: 0.0,
            invariance: 0.0,
            std: 0.0,
            cov: 0.0,
            gradients: [Vec::new(), Vec::new()],
        };
        let count = first.len() as f64;
        let apart = first.iter().zip(second);
        let apart = apart.map(|(&a, &b)| f64::from(a) - f64::from(b));
        losses.invariance = apart.clone().map(|v| v * v).sum::<f64>() / count;
        let towards: Vec<f64> = apart.map(|v| 2.0 * v / count).collect();
        for ((batch, sign), gradient) in views.iter().zip([1.0, -1.0]).zip(&mut losses.gradients) {
            let (std, spread) = batch.hinge(self.hinge)?;
            let (cov, related) = batch.covariance();
            losses.std += std;
            losses.cov += cov;
            *gradient = combined(&[
                (sign * self.inv_coefficient, &towards),
                (self.std_coefficient, &spread),
                (self.cov_coefficient, &related),
            ]);
        }
        losses.loss = self.inv_coefficient * losses.invariance
            + self.std_coefficient * losses.std
            + self.cov_coefficient * losses.cov;
        Ok(losses)
    }
}

/// The mean over dimensions of `max(0, margin − √(variance + eps))` of `z [n, d]`, with the unbiased variance.
///
/// # Errors
/// [`Error::BadConfig`] when a constant is out of its range; [`Error::BadInput`] when `z` is not `[n, d]` or `n` is 1.
pub fn hinge_std(z: &[f32], shape: [usize; 2], hinge: Hinge) -> Result<Term> {
    let (value, gradient) = Batch::new(z, shape)?.hinge(hinge)?;
    Ok(Term {
        value,
        gradient: combined(&[(1.0, &gradient)]),
    })
}

/// The mean square of the covariances between different dimensions of `z [n, d]`, each with the divisor `n − 1`; 0 for a
/// single dimension.
///
/// # Errors
/// [`Error::BadInput`] when `z` is not `[n, d]` or `n` is 1.
pub fn covariance(z: &[f32], shape: [usize; 2]) -> Result<Term> {
    let (value, gradient) = Batch::new(z, shape)?.covariance();
    Ok(Term {
        value,
        gradient: combined(&[(1.0, &gradient)]),
    })
}

/// The mean of `(z[t+1] − z[t])²` of `z [batch, frames, d]`: embeddings that change slowly.
///
/// # Errors
/// [`Error::BadInput`] when `z` is not `[batch, frames, d]` or has a single frame.
pub fn time_similarity(z: &[f32], [batch, frames, d]: [usize; 3]) -> Result<Term> {
    checked("embeddings", z, &[batch, frames, d])?;
    if frames < 2 {
        return Err(Error::BadInput(
            "a single frame has no next one to be similar to; pass clips of at least 2 frames"
                .to_owned(),
        ));
    }
    let count = (batch * (frames - 1) * d) as f64;
    let mut value = 0.0;
    let mut gradient = vec![0.0; z.len()];
    for start in (0..batch).map(|b| b * frames * d) {
        for now in start..start + (frames - 1) * d {
            let change = f64::from(z[now + d]) - f64::from(z[now]);
            value += change * change / count;
            gradient[now] -= 2.0 * change / count;
            gradient[now + d] += 2.0 * change / count;
        }
    }
    Ok(Term {
        value,
        gradient: combined(&[(1.0, &gradient)]),
    })
}

/// Embeddings about their mean. Gradients with respect to them are those with respect to the embeddings, as each sums to
/// 0 over the batch.
struct Batch {
    /// `[n, d]`.
    centred: Vec<f64>,
    n: usize,
    d: usize,
}

impl Batch {
    fn new(z: &[f32], [n, d]: [usize; 2]) -> Result<Self> {
        checked("embeddings", z, &[n, d])?;
        if n < 2 {
            return Err(Error::BadInput(
                "a single embedding has no variance; pass a batch of at least 2".to_owned(),
            ));
        }
        let mut centred: Vec<f64> = z.iter().map(|&v| f64::from(v)).collect();
        for column in 0..d {
            let values = || z.iter().skip(column).step_by(d).map(|&v| f64::from(v));
            let mean = values().sum::<f64>() / n as f64;
            for v in centred.iter_mut().skip(column).step_by(d) {
                *v -= mean;
            }
        }
        Ok(Self { centred, n, d })
    }

    fn hinge(&self, Hinge { margin, eps }: Hinge) -> Result<(f64, Vec<f64>)> {
        if !(margin.is_finite() && eps > 0.0 && eps.is_finite()) {
            return Err(Error::BadConfig(format!(
                "the hinge has the margin {margin} and eps {eps}; use finite numbers, and an eps greater than 0"
            )));
        }
        let (d, degrees) = (self.d, (self.n - 1) as f64);
        let mut value = 0.0;
        let mut gradient = vec![0.0; self.centred.len()];
        for column in 0..d {
            let values = || self.centred.iter().skip(column).step_by(d);
            let std = (values().map(|v| v * v).sum::<f64>() / degrees + eps).sqrt();
            // Written so that a NaN comes out.
            if std >= margin {
                continue;
            }
            value += (margin - std) / d as f64;
            let slope = -1.0 / (d as f64 * degrees * std);
            let out = gradient.iter_mut().skip(column).step_by(d);
            out.zip(values()).for_each(|(g, v)| *g = slope * v);
        }
        Ok((value, gradient))
    }

    fn covariance(&self) -> (f64, Vec<f64>) {
        let (d, degrees) = (self.d, (self.n - 1) as f64);
        let mut gradient = vec![0.0; self.centred.len()];
        if d < 2 {
            return (0.0, gradient);
        }
        let mut matrix = vec![0.0; d * d];
        for row in self.centred.chunks_exact(d) {
            for (&v, out) in row.iter().zip(matrix.chunks_exact_mut(d)) {
                add(out, v / degrees, row);
            }
        }
        matrix.iter_mut().step_by(d + 1).for_each(|v| *v = 0.0);
        let pairs = (d * (d - 1)) as f64;
        let value = matrix.iter().map(|v| v * v).sum::<f64>() / pairs;
        for (row, out) in self
            .centred
            .chunks_exact(d)
            .zip(gradient.chunks_exact_mut(d))
        {
            for (&v, related) in row.iter().zip(matrix.chunks_exact(d)) {
                add(out, 4.0 * v / (pairs * degrees), related);
            }
        }
        (value, gradient)
    }
}

/// `out += factor · values`.
fn add(out: &mut [f64], factor: f64, values: &[f64]) {
    for (out, v) in out.iter_mut().zip(values) {
        *out += factor * v;
    }
}

#[cfg(test)]
mod tests {
    use super::super::difference::{assert_gradient, points};
    use super::{Hinge, VicReg, covariance, hinge_std, time_similarity};

    const SHAPES: [[usize; 2]; 5] = [[2, 1], [5, 1], [2, 3], [7, 5], [8, 6]];
    /// With this margin some dimensions of the test points are below it and some above.
    const HINGE: Hinge = Hinge {
        margin: 1.1,
        eps: 1e-4,
    };

    #[test]
    fn gradients_are_the_finite_differences() {
        for (seed, shape) in SHAPES.into_iter().enumerate() {
            let seed = 2 * seed as u32;
            let [first, second] = [seed, seed + 1].map(|s| points(s, shape[0] * shape[1]));
            let vicreg = VicReg {
                inv_coefficient: 3.0,
                hinge: HINGE,
                ..VicReg::default()
            };
            let losses = vicreg.evaluate(&first, &second, shape).unwrap();
            let [first_gradient, second_gradient] = &losses.gradients;
            assert_gradient(&first, first_gradient, |z| {
                vicreg.evaluate(z, &second, shape).unwrap().loss
            });
            assert_gradient(&second, second_gradient, |z| {
                vicreg.evaluate(&first, z, shape).unwrap().loss
            });

            let hinge = hinge_std(&first, shape, HINGE).unwrap();
            assert_gradient(&first, &hinge.gradient, |z| {
                hinge_std(z, shape, HINGE).unwrap().value
            });
            let cov = covariance(&first, shape).unwrap();
            assert_gradient(&first, &cov.gradient, |z| {
                covariance(z, shape).unwrap().value
            });
        }
        for (seed, shape) in [[1, 2, 1], [2, 3, 2], [1, 5, 3]].into_iter().enumerate() {
            let z = points(seed as u32, shape.iter().product());
            let term = time_similarity(&z, shape).unwrap();
            assert_gradient(&z, &term.gradient, |z| {
                time_similarity(z, shape).unwrap().value
            });
        }
    }

    #[test]
    fn closed_forms() {
        // Dimensions (0, 2, 4), (2, 1, 0) and (0, 0, 0): variances 4, 1 and 0; covariance -2 of the first two.
        let z = [0., 2., 0., 2., 1., 0., 4., 0., 0.];
        let hinge = Hinge {
            margin: 1.5,
            eps: 0.25,
        };
        let expected = ((1.5 - 1.25f64.sqrt()) + 1.0) / 3.0;
        let term = hinge_std(&z, [3, 3], hinge).unwrap();
        assert!((term.value - expected).abs() < 1e-15);
        assert!(term.gradient.iter().step_by(3).all(|&g| g == 0.0));
        // (-2)² twice, of six pairs.
        assert!((covariance(&z, [3, 3]).unwrap().value - 8.0 / 6.0).abs() < 1e-15);
        assert_eq!(covariance(&z, [9, 1]).unwrap().value, 0.0);

        // One clip of three frames: changes (2, -1, 0) and (2, -1, 0).
        let similarity = time_similarity(&z, [1, 3, 3]).unwrap().value;
        assert!((similarity - 10.0 / 6.0).abs() < 1e-15);
        // Three clips of three frames of one value: changes of clips do not touch each other.
        let similarity = time_similarity(&z, [3, 3, 1]).unwrap().value;
        assert!((similarity - (4. + 4. + 1. + 1. + 16. + 0.) / 6.0).abs() < 1e-15);

        let moved: Vec<f32> = z.iter().map(|v| v + 3.0).collect();
        let losses = VicReg::default().evaluate(&z, &moved, [3, 3]).unwrap();
        assert!((losses.invariance - 9.0).abs() < 1e-12);
        // A shift changes neither spread nor covariance, so that both views have the same.
        let one = covariance(&z, [3, 3]).unwrap().value;
        assert!((losses.cov - 2.0 * one).abs() < 1e-12);
        let sum = losses.invariance + losses.std + 100.0 * losses.cov;
        assert!((losses.loss - sum).abs() < 1e-12);
    }

    #[test]
    fn a_collapsed_batch_has_the_full_hinge_and_finite_slopes() {
        let losses = VicReg::default()
            .evaluate(&[0.5; 8], &[0.5; 8], [4, 2])
            .unwrap();
        assert!((losses.std - 2.0 * (1.0 - 0.01)).abs() < 1e-12);
        assert!(losses.gradients.iter().flatten().all(|&g| g == 0.0));
    }

    #[test]
    fn what_is_not_a_number_comes_out() {
        let z = [f32::NAN, 1.0, 2.0, 3.0];
        assert!(hinge_std(&z, [4, 1], HINGE).unwrap().value.is_nan());
        assert!(covariance(&z, [2, 2]).unwrap().value.is_nan());
        assert!(time_similarity(&z, [1, 4, 1]).unwrap().value.is_nan());
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let z = [0.0; 4];
        let code = |change: fn(&mut VicReg), shape| {
            let mut vicreg = VicReg::default();
            change(&mut vicreg);
            vicreg.evaluate(&z, &z, shape).unwrap_err().code()
        };
        assert_eq!(code(|_| (), [1, 4]), "bad-input");
        assert_eq!(code(|_| (), [4, 2]), "bad-input");
        assert_eq!(code(|v| v.hinge.eps = 0.0, [2, 2]), "bad-config");
        assert_eq!(code(|v| v.hinge.margin = f64::NAN, [2, 2]), "bad-config");
        assert_eq!(code(|v| v.cov_coefficient = -1.0, [2, 2]), "bad-config");
        assert_eq!(
            code(|v| v.inv_coefficient = f64::INFINITY, [2, 2]),
            "bad-config"
        );
        let refused = time_similarity(&z, [4, 1, 1]).unwrap_err();
        assert_eq!(refused.code(), "bad-input");
    }
}
