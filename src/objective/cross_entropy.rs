//! Cross entropy: how far scores are from saying the classes.

use super::checked;
use crate::{Error, Result};

/// What [`cross_entropy`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    /// `−ln p` of the right class, on average over rows; p is the softmax of the scores.
    pub loss: f64,
    /// Of the loss for each score, `[rows, classes]`.
    pub gradient: Vec<f32>,
    /// Rows whose highest score is that of the right class.
    pub correct: usize,
}

/// The loss of `scores` `[rows, classes]` whose rows are of the classes `labels`, as PyTorch's `CrossEntropyLoss` has it.
///
/// # Errors
/// [`Error::BadInput`] for sizes that do not fit, and for a label that is no class.
pub fn cross_entropy(scores: &[f32], labels: &[usize], classes: usize) -> Result<CrossEntropy> {
    checked("scores", scores, &[labels.len(), classes])?;
    if let Some(label) = labels.iter().find(|&&label| label >= classes) {
        return Err(Error::BadInput(format!(
            "there is a label {label}, and the classes are 0 to {}",
            classes - 1
        )));
    }
    let rows = labels.len() as f64;
    let mut result = CrossEntropy {
        loss: 0.0,
        gradient: Vec::with_capacity(scores.len()),
        correct: 0,
    };
    for (scores, &label) in scores.chunks_exact(classes).zip(labels) {
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers = scores.iter().map(|&s| libm::exp(f64::from(s - highest)));
        let total: f64 = powers.clone().sum();
        result.loss += (libm::log(total) - f64::from(scores[label] - highest)) / rows;
        result.correct += usize::from(scores[label] == highest);
        let gradient = powers.enumerate().map(|(class, power)| {
            let wanted = if class == label { 1.0 } else { 0.0 };
            ((power / total - wanted) / rows) as f32
        });
        result.gradient.extend(gradient);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_cost_the_logarithm_of_the_classes() {
        let even = cross_entropy(&[2.0; 8], &[1, 3], 4).unwrap();
        assert!((even.loss - 4f64.ln()).abs() < 1e-12, "{}", even.loss);
        // (1/4 − 1) / 2 for the class, 1/4 / 2 for the others.
        let row = |label| (0..4).map(move |class| if class == label { -0.375 } else { 0.125 });
        let expected: Vec<f32> = row(1).chain(row(3)).collect();
        assert_eq!(even.gradient, expected);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let scores = [0.3, -1.2, 2.0, 0.0, 0.7, -0.4];
        let at = |scores: &[f32]| cross_entropy(scores, &[2, 0], 3).unwrap();
        let (gradient, h) = (at(&scores).gradient, 1.0 / 256.0);
        for i in 0..scores.len() {
            let moved = |by: f32| {
                let mut scores = scores;
                scores[i] += by;
                at(&scores).loss
            };
            let slope = (moved(h) - moved(-h)) / f64::from(2.0 * h);
            assert!(
                (slope - f64::from(gradient[i])).abs() < 1e-5,
                "{i}: {slope}"
            );
        }
        assert_eq!(at(&scores).correct, 1);
    }

    #[test]
    fn large_scores_stay_finite_and_none_stay_hidden() {
        let far = cross_entropy(&[1e30, -1e30], &[0], 2).unwrap();
        assert_eq!((far.loss, far.correct), (0.0, 1));
        assert!(
            cross_entropy(&[f32::NAN, 0.0], &[0], 2)
                .unwrap()
                .loss
                .is_nan()
        );
        for (scores, labels) in [(&[0.0, 0.0][..], &[2][..]), (&[0.0], &[0]), (&[], &[])] {
            let error = cross_entropy(scores, labels, 2).unwrap_err();
            assert_eq!(error.code(), "bad-input");
        }
    }
}
