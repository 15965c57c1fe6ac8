//! Distances between predicted and target tokens, the losses of the masked-prediction systems.

use super::checked;
use crate::{Error, Result};

/// What is averaged over the elements of a token, of `δ = prediction − target`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance {
    /// `δ² / (2·beta)` where `|δ| < beta`, and `|δ| − beta/2` elsewhere. I-JEPA: `beta` 1.
    SmoothL1 {
        /// Where the parabola ends; greater than 0.
        beta: f64,
    },
    /// `|δ|^power / power`. The V-JEPA family: `power` 1, the mean absolute error.
    L1 {
        /// At least 1.
        power: f64,
    },
    /// `δ²`.
    Mse,
}

/// A distance between rows, and how it changes with the prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The mean over each row's elements, `[rows]`.
    pub rows: Vec<f32>,
    /// The mean over all elements: the loss.
    pub mean: f64,
    /// Of `mean` with respect to the prediction, `[rows, d]`. Zero where a prediction is its target.
    pub gradient: Vec<f32>,
}

impl Distance {
    /// # Errors
    /// [`Error::BadConfig`] when a constant is out of its range.
    pub fn check(self) -> Result<()> {
        match self {
            Self::SmoothL1 { beta } if !(beta > 0.0 && beta.is_finite()) => {
                Err(Error::BadConfig(format!(
                    "beta of the smooth L1 loss is {beta}; use a number greater than 0, or the L1 loss"
                )))
            }
            Self::L1 { power } if !(power >= 1.0 && power.is_finite()) => Err(Error::BadConfig(
                format!("the exponent of the L1 loss is {power}; use 1 or more"),
            )),
            _ => Ok(()),
        }
    }

    /// Compares `prediction` and `target`, each `[rows, d]`.
    ///
    /// # Errors
    /// [`Error::BadConfig`] as [`check`](Self::check); [`Error::BadInput`] when a slice is not `[rows, d]`.
    pub fn between(
        self,
        prediction: &[f32],
        target: &[f32],
        [rows, d]: [usize; 2],
    ) -> Result<Compared> {
        self.check()?;
        let count = checked("a prediction", prediction, &[rows, d])?;
        checked("a target", target, &[rows, d])?;
        let mut compared = Compared {
            rows: Vec::with_capacity(rows),
            mean: 0.0,
            gradient: Vec::with_capacity(count),
        };
        for (predicted, wanted) in prediction.chunks_exact(d).zip(target.chunks_exact(d)) {
            let mut sum = 0.0;
            for (&z, &h) in predicted.iter().zip(wanted) {
                let (value, slope) = self.element(f64::from(z) - f64::from(h));
                sum += value;
                compared.gradient.push((slope / count as f64) as f32);
            }
            compared.rows.push((sum / d as f64) as f32);
            compared.mean += sum / count as f64;
        }
        Ok(compared)
    }

    /// The distance of one element and its slope.
    pub(crate) fn element(self, delta: f64) -> (f64, f64) {
        let size = delta.abs();
        // f64's own signum of 0 is 1.
        let sign = if delta == 0.0 { 0.0 } else { delta.signum() };
        match self {
            Self::SmoothL1 { beta } if size < beta => (0.5 * delta * delta / beta, delta / beta),
            Self::SmoothL1 { beta } => (size - 0.5 * beta, sign),
            Self::L1 { power } => (size.powf(power) / power, sign * size.powf(power - 1.0)),
            Self::Mse => (delta * delta, 2.0 * delta),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::difference::{REACH, assert_gradient, points};
    use super::Distance;

    const ALL: [Distance; 6] = [
        Distance::SmoothL1 { beta: 1.0 },
        Distance::SmoothL1 { beta: 0.25 },
        Distance::L1 { power: 1.0 },
        Distance::L1 { power: 1.5 },
        Distance::L1 { power: 3.0 },
        Distance::Mse,
    ];

    /// Moves a prediction away from where a distance bends too sharply for finite differences.
    fn smooth(prediction: &mut [f32], target: &[f32], distance: Distance) {
        let (kink, margin) = match distance {
            Distance::SmoothL1 { beta } => (beta, REACH),
            Distance::L1 { .. } => (0.0, 100.0 * REACH),
            Distance::Mse => return,
        };
        for (z, &h) in prediction.iter_mut().zip(target) {
            while ((f64::from(*z) - f64::from(h)).abs() - kink).abs() <= margin {
                *z += 0.125;
            }
        }
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        for distance in ALL {
            for (seed, shape) in [[1, 1], [3, 1], [1, 5], [2, 7], [3, 4]]
                .into_iter()
                .enumerate()
            {
                let count = shape[0] * shape[1];
                let target = points(seed as u32 + 100, count);
                let mut prediction = points(seed as u32, count);
                smooth(&mut prediction, &target, distance);
                let compared = distance.between(&prediction, &target, shape).unwrap();
                assert_gradient(&prediction, &compared.gradient, |z| {
                    distance.between(z, &target, shape).unwrap().mean
                });
            }
        }
    }

    #[test]
    fn closed_forms() {
        let (prediction, target) = ([0.5, -3.0, 1.0, 2.0], [0.0, -1.0, 1.0, 6.0]);
        let rows = |distance: Distance| {
            let compared = distance.between(&prediction, &target, [2, 2]).unwrap();
            assert!(
                (compared.mean * 2.0 - f64::from(compared.rows[0] + compared.rows[1])).abs() < 1e-6
            );
            compared.rows
        };
        // (0.125 + 1.5) / 2 and (0 + 3.5) / 2.
        assert_eq!(rows(Distance::SmoothL1 { beta: 1.0 }), [0.8125, 1.75]);
        // (0.0625 + 1) / 2 and (0 + 3) / 2.
        assert_eq!(rows(Distance::SmoothL1 { beta: 2.0 }), [0.53125, 1.5]);
        assert_eq!(rows(Distance::L1 { power: 1.0 }), [1.25, 2.0]);
        // A power of 2 halves the squared error.
        assert_eq!(rows(Distance::L1 { power: 2.0 }), [1.0625, 4.0]);
        assert_eq!(rows(Distance::Mse), [2.125, 8.0]);
    }

    #[test]
    fn nothing_pulls_at_a_perfect_prediction() {
        for distance in ALL {
            let at = points(3, 10);
            let compared = distance.between(&at, &at, [2, 5]).unwrap();
            assert_eq!(compared.mean, 0.0);
            assert!(compared.gradient.iter().all(|&g| g == 0.0));
        }
    }

    #[test]
    fn constants_and_shapes_are_checked() {
        let code = |distance: Distance, shape| {
            distance
                .between(&[1.0; 4], &[0.0; 4], shape)
                .unwrap_err()
                .code()
        };
        for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(code(Distance::SmoothL1 { beta }, [2, 2]), "bad-config");
        }
        for power in [0.5, f64::NAN, f64::INFINITY] {
            assert_eq!(code(Distance::L1 { power }, [2, 2]), "bad-config");
        }
        for shape in [[0, 4], [4, 0], [3, 2], [usize::MAX, 2]] {
            assert_eq!(code(Distance::Mse, shape), "bad-input");
        }
        assert_eq!(
            Distance::Mse
                .between(&[1.0; 4], &[0.0; 3], [2, 2])
                .unwrap_err()
                .code(),
            "bad-input"
        );
    }
}
