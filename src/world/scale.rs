//! Actions in units of their own spread, as world models are given them.

use super::bad;
use crate::{Error, Result};

/// Mean and standard deviation of each number of an action.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionScale {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl ActionScale {
    /// From statistics; a number that never differs has a deviation of 0, and is not scaled.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for lists of different or no length, and for numbers that are not finite or deviations below 0.
    pub fn new(mean: Vec<f64>, std: Vec<f64>) -> Result<Self> {
        let finite = mean.iter().chain(&std).all(|v| v.is_finite());
        if mean.is_empty() || mean.len() != std.len() || !finite || std.iter().any(|&v| v < 0.0) {
            return Err(bad(
                "actions have a finite mean and a deviation from 0 on for each of their numbers",
            ));
        }
        Ok(Self { mean, std })
    }

    /// Of `actions [count, action]`, with the unbiased deviation; NaN, as data sets have where an episode ends, is left out.
    ///
    /// # Errors
    /// [`Error::BadInput`] where there are not two actions or more with each number, or infinite ones.
    pub fn of(actions: &[f32], action: usize) -> Result<Self> {
        if action == 0 || !actions.len().is_multiple_of(action) {
            return Err(Error::BadInput(format!(
                "{} numbers are not actions of {action}",
                actions.len()
            )));
        }
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        for axis in 0..action {
            let all = actions.iter().skip(axis).step_by(action);
            let known: Vec<f64> = all.filter(|v| !v.is_nan()).map(|&v| v.into()).collect();
            if known.len() < 2 || known.iter().any(|v| v.is_infinite()) {
                return Err(Error::BadInput(format!(
                    "number {axis} of the actions needs two finite values at least, and none that is infinite"
                )));
            }
            let count = known.len() as f64;
            let of_axis = known.iter().sum::<f64>() / count;
            let squares: f64 = known.iter().map(|v| (v - of_axis).powi(2)).sum();
            mean.push(of_axis);
            std.push((squares / (count - 1.0)).sqrt());
        }
        Ok(Self { mean, std })
    }

    /// The mean of each number, then the deviations.
    pub fn statistics(self) -> Vec<f64> {
        [self.mean, self.std].concat()
    }

    /// Actions `[count, action]`, or blocks of several one after the other, as a model takes them: `(a − mean) / std`, and 0 for NaN.
    ///
    /// # Errors
    /// [`Error::BadInput`] for another number of values.
    pub fn scaled(&self, actions: &[f32]) -> Result<Vec<f32>> {
        self.each(actions, |v, mean, std| match v.is_nan() {
            true => 0.0,
            false => (v - mean) / std,
        })
    }

    /// Such actions as the environment takes them.
    ///
    /// # Errors
    /// [`Error::BadInput`] for another number of values.
    pub fn unscaled(&self, actions: &[f32]) -> Result<Vec<f32>> {
        self.each(actions, |v, mean, std| v * std + mean)
    }

    fn each(&self, actions: &[f32], number: impl Fn(f64, f64, f64) -> f64) -> Result<Vec<f32>> {
        let width = self.mean.len();
        if !actions.len().is_multiple_of(width) {
            return Err(Error::BadInput(format!(
                "{} numbers are not actions of {width}",
                actions.len()
            )));
        }
        let scaled = actions.iter().enumerate().map(|(i, &v)| {
            let (mean, std) = (self.mean[i % width], self.std[i % width]);
            let std = if std > 0.0 { std } else { 1.0 };
            number(v.into(), mean, std) as f32
        });
        Ok(scaled.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_scaled_and_back() {
        let actions = [1.0, 5.0, 3.0, 5.0, f32::NAN, f32::NAN, 5.0, 5.0];
        let scale = ActionScale::of(&actions, 2).unwrap();
        // Of 1, 3 and 5: mean 3, unbiased deviation 2. The second number never differs.
        let scaled = scale.scaled(&actions).unwrap();
        assert_eq!(scaled, [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let back = scale.unscaled(&scaled[..4]).unwrap();
        assert_eq!(back, actions[..4]);
        let given = ActionScale::new(vec![3.0, 5.0], vec![2.0, 0.0]);
        assert_eq!(given, Ok(scale));
    }

    #[test]
    fn bad_statistics_and_sizes_are_refused() {
        let code = |mean: &[f64], std: &[f64]| {
            let scale = ActionScale::new(mean.into(), std.into());
            scale.map_err(|e| e.code()).map(|_| ())
        };
        assert_eq!(code(&[0.0], &[1.0]), Ok(()));
        for (mean, std) in [
            (&[][..], &[][..]),
            (&[0.0], &[]),
            (&[0.0], &[-1.0]),
            (&[f64::NAN], &[1.0]),
            (&[0.0], &[f64::INFINITY]),
        ] {
            assert_eq!(code(mean, std), Err("bad-config"));
        }
        for (actions, action) in [
            (&[1.0, 2.0, 3.0][..], 2),
            (&[1.0, 2.0], 0),
            (&[1.0, f32::NAN], 1),
            (&[1.0, f32::INFINITY, 1.0], 1),
        ] {
            let error = ActionScale::of(actions, action).unwrap_err();
            assert_eq!(error.code(), "bad-input");
        }
        let scale = ActionScale::new(vec![0.0; 2], vec![1.0; 2]).unwrap();
        assert_eq!(scale.scaled(&[0.0; 3]).unwrap_err().code(), "bad-input");
    }
}
