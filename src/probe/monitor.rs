//! Signs of collapse: a run in training whose embeddings stop to differ has a falling loss and learns nothing.

use serde::Serialize;

use super::dots::{dot, gram};
use super::rows;
use super::symmetric::Tridiagonal;
use crate::{Error, Result};

/// The share of the first spread below which a run is said to collapse.
///
/// Healthy values differ by architecture and normalisation by orders of magnitude, so no absolute bound serves; what
/// tells is that pictures differ less than they did to an untrained encoder. Sampling moves a standard deviation by
/// 1/√(2·batch), 9 % at 64 pictures, and collapse is a decay without end (VICReg without its variance term, Bardes et al.
/// 2022). A quarter is far from the one and early in the other; it is reasoned, not measured.
const LEAST_SPREAD: f64 = 0.25;

/// The share of the first effective rank below which a run is said to collapse in part: all but a few directions are lost
/// while the others keep their spread (dimensional collapse, Jing et al. 2022). Half the rank is an entropy of ln 2 less;
/// between encoders, RankMe (Garrido et al. 2023) finds downstream accuracy to fall with it.
const LEAST_RANK: f64 = 0.5;

/// How far the embeddings of a batch of different pictures differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// The standard deviation over the batch (of n − 1), averaged over dimensions.
    pub std: f64,
    /// exp(−Σ p ln p) of p = σ / Σ σ, where σ are the singular values: Roy & Vetterli 2007, here of the batch less its
    /// mean. What all pictures share says nothing of collapse and, left in as RankMe does, would hide the rest. From 1 to
    /// min(batch − 1, d), or 0 if all embeddings are the same.
    pub effective_rank: f64,
    /// The mean cosine between two embeddings of the batch. Towards 1 in collapse, but also high in untrained
    /// encoders, whose embeddings have a large common part.
    pub cosine: f64,
}

impl Spread {
    /// Of embeddings `[batch, d]`.
    ///
    /// # Errors
    /// [`Error::BadInput`] if there are fewer than two, or if a value is not finite.
    pub fn of(embeddings: &[f32], d: usize) -> Result<Self> {
        let batch = rows(embeddings, d)?;
        if batch < 2 {
            return Err(Error::BadInput(
                "The spread of one embedding is nothing; give two pictures at least.".into(),
            ));
        }
        let n = batch as f64;
        let mut columns = vec![0.0; d * batch];
        for (i, row) in embeddings.chunks_exact(d).enumerate() {
            for (j, &value) in row.iter().enumerate() {
                columns[j * batch + i] = f64::from(value);
            }
        }
        let cosine = mean_cosine(embeddings, d);
        let mut std = 0.0;
        for column in columns.chunks_exact_mut(batch) {
            let mean = column.iter().sum::<f64>() / n;
            column.iter_mut().for_each(|value| *value -= mean);
            std += (dot(column, column) / (n - 1.0)).sqrt();
        }
        Ok(Self {
            std: std / d as f64,
            effective_rank: effective_rank(columns, batch),
            cosine,
        })
    }

    /// In plain words, what is wrong with a run that began with the spread `start` (measured before the first step, with
    /// as many pictures); nothing while it is healthy.
    pub fn warning(&self, start: &Self) -> Option<String> {
        let advice = "Lower the learning rate, move the target encoder more slowly, or give the regulariser more weight.";
        let percent = |now: f64, then: f64| (100.0 * now / then).round();
        if self.std < LEAST_SPREAD * start.std {
            return Some(format!(
                "The embeddings are collapsing: different pictures get almost the same one. Their standard deviation is \
                 {:.3e}, {} % of what it was at the start. {advice}",
                self.std,
                percent(self.std, start.std)
            ));
        }
        // The angle matters to whatever compares by cosine, and shrinks without the deviation if lengths grow.
        let (angle, first) = (1.0 - self.cosine, 1.0 - start.cosine);
        if angle < LEAST_SPREAD * first {
            return Some(format!(
                "The embeddings are collapsing: different pictures point the same way. Their mean cosine is {:.4}, and was \
                 {:.4} at the start. {advice}",
                self.cosine, start.cosine
            ));
        }
        if self.effective_rank < LEAST_RANK * start.effective_rank {
            return Some(format!(
                "The embeddings are collapsing in part: they use about {:.1} directions, {} % of those at the start. {advice}",
                self.effective_rank,
                percent(self.effective_rank, start.effective_rank)
            ));
        }
        None
    }
}

/// Between different rows: the squared length of the sum of unit rows counts every pair twice, and every row once.
fn mean_cosine(embeddings: &[f32], d: usize) -> f64 {
    let mut sum = vec![0.0; d];
    let mut own = 0.0;
    for row in embeddings.chunks_exact(d) {
        let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
        let length = dot(&row, &row).sqrt();
        if length > 0.0 {
            own += 1.0;
            sum.iter_mut()
                .zip(&row)
                .for_each(|(sum, value)| *sum += value / length);
        }
    }
    let n = (embeddings.len() / d) as f64;
    (dot(&sum, &sum) - own) / (n * (n - 1.0))
}

/// Of `[d, batch]`, whose rows have mean 0. The singular values are the roots of the eigenvalues of the smaller Gram matrix.
fn effective_rank(columns: Vec<f64>, batch: usize) -> f64 {
    let d = columns.len() / batch;
    let side = d.min(batch);
    let products = if d <= batch {
        gram(&columns, d)
    } else {
        let rows: Vec<f64> = (0..batch)
            .flat_map(|i| columns.iter().skip(i).step_by(batch).copied())
            .collect();
        gram(&rows, batch)
    };
    let singular: Vec<f64> = Tridiagonal::new(products, side)
        .eigenvalues()
        .into_iter()
        .map(|value| value.max(0.0).sqrt())
        .collect();
    let total: f64 = singular.iter().sum();
    if total == 0.0 {
        return 0.0;
    }
    let entropy: f64 = singular
        .iter()
        .map(|value| value / total)
        .filter(|&p| p > 0.0)
        .map(|p| -p * p.ln())
        .sum();
    entropy.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Generator, Stream};

    fn normal(count: usize, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; count];
        Stream::new(seed, "monitor", 0).fill_normal(&mut values);
        values
    }

    fn close(value: f64, expected: f64, allowed: f64) {
        assert!(
            (value - expected).abs() < allowed,
            "{value}, not {expected}"
        );
    }

    #[test]
    fn orthonormal_rows() {
        // n rows along n axes: less their mean, n − 1 equal singular values. In each of n of the d dimensions one of n
        // values is 1: variance 1/n.
        for (n, d) in [(2, 2), (5, 9), (9, 9)] {
            let mut rows = vec![0.0; n * d];
            (0..n).for_each(|i| rows[i * d + i] = 1.0);
            let spread = Spread::of(&rows, d).unwrap();
            close(spread.effective_rank, n as f64 - 1.0, 1e-6);
            close(spread.cosine, 0.0, 1e-12);
            let n = n as f64;
            close(spread.std, n / d as f64 * (1.0 / n).sqrt(), 1e-12);
        }
        // With their opposites the mean is 0 and every direction counts; each row has one opposite.
        for (n, d) in [(3, 3), (4, 7)] {
            let mut rows = vec![0.0; 2 * n * d];
            for i in 0..n {
                rows[2 * i * d + i] = 3.0;
                rows[(2 * i + 1) * d + i] = -3.0;
            }
            let spread = Spread::of(&rows, d).unwrap();
            close(spread.effective_rank, n as f64, 1e-6);
            close(spread.cosine, -1.0 / (2.0 * n as f64 - 1.0), 1e-12);
        }
    }

    #[test]
    fn singular_values_of_two_sizes() {
        // ± 3 along one axis and ± 1 along another: singular values in the ratio 3 to 1.
        let rows = [3.0, 0.0, -3.0, 0.0, 0.0, 1.0, 0.0, -1.0];
        let expected = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        close(
            Spread::of(&rows, 2).unwrap().effective_rank,
            expected.exp(),
            1e-9,
        );
    }

    #[test]
    fn one_direction_and_none() {
        for (batch, d) in [(50, 7), (7, 50)] {
            let rows: Vec<f32> = (0..batch)
                .flat_map(|i| (0..d).map(move |j| (i as f32 - 3.0) * (j as f32 - 2.0) + 5.0))
                .collect();
            close(Spread::of(&rows, d).unwrap().effective_rank, 1.0, 1e-4);
        }
        let same: Vec<f32> = [0.25, -3.0, 8.0].repeat(20);
        let spread = Spread::of(&same, 3).unwrap();
        assert_eq!((spread.std, spread.effective_rank), (0.0, 0.0));
        close(spread.cosine, 1.0, 1e-12);
        assert_eq!(Spread::of(&[0.0; 8], 2).unwrap().cosine, 0.0);
    }

    #[test]
    fn an_isotropic_gaussian_has_all_of_it() {
        let spread = Spread::of(&normal(4000 * 16, 1), 16).unwrap();
        close(spread.std, 1.0, 0.01);
        close(spread.cosine, 0.0, 0.005);
        // Singular values spread by ± √(d/n) = 6 %, which costs half their variance, 0.1 %, of the entropy.
        close(spread.effective_rank, 16.0, 0.05);
        // A matrix and its transpose, through either Gram matrix.
        let wide: Vec<f64> = normal(12 * 30, 2).into_iter().map(f64::from).collect();
        let tall: Vec<f64> = (0..30)
            .flat_map(|j| wide.iter().skip(j).step_by(30).copied())
            .collect();
        close(effective_rank(wide, 30), effective_rank(tall, 12), 1e-9);
    }

    #[test]
    fn the_mean_cosine_is_that_of_all_pairs() {
        let rows = normal(9 * 5, 3);
        let pairs = (0..9).flat_map(|i| (0..9).filter(move |&j| j != i).map(move |j| (i, j)));
        let expected: f64 = pairs
            .map(|(i, j)| {
                let [a, b] = [i, j].map(|i: usize| rows[i * 5..(i + 1) * 5].iter());
                let dot = |a: std::slice::Iter<f32>, b: std::slice::Iter<f32>| -> f64 {
                    a.zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
                };
                dot(a.clone(), b.clone()) / (dot(a.clone(), a) * dot(b.clone(), b)).sqrt()
            })
            .sum();
        close(Spread::of(&rows, 5).unwrap().cosine, expected / 72.0, 1e-12);
    }

    #[test]
    fn healthy_runs_pass_and_each_collapse_is_named() {
        let d = 24;
        let first = normal(64 * d, 4);
        let start = Spread::of(&first, d).unwrap();
        let after = |change: &dyn Fn(usize, f32) -> f32| {
            let rows: Vec<f32> = normal(64 * d, 5)
                .iter()
                .enumerate()
                .map(|(i, &value)| change(i % d, value))
                .collect();
            Spread::of(&rows, d).unwrap().warning(&start)
        };
        assert_eq!(start.warning(&start), None);
        assert_eq!(after(&|_, value| value), None);
        assert_eq!(after(&|_, value| 0.5 * value), None);
        assert_eq!(after(&|_, value| 20.0 * value), None);
        let shrunk = after(&|_, value| 0.1 * value).unwrap();
        assert!(shrunk.contains("almost the same one"), "{shrunk}");
        assert!(shrunk.contains("10 % of what it was"), "{shrunk}");
        let aligned = after(&|_, value| value + 5.0).unwrap();
        assert!(aligned.contains("point the same way"), "{aligned}");
        // Four of the dimensions keep all the spread.
        let flat = after(&|j, value| if j < 4 { 6.0 * value } else { 0.01 * value }).unwrap();
        assert!(flat.contains("directions"), "{flat}");
        let gone = after(&|_, _| 1.0).unwrap();
        assert!(gone.contains("0 % of what it was"), "{gone}");
    }

    #[test]
    fn what_has_no_spread_is_refused() {
        for (rows, d) in [
            (vec![1.0, 2.0], 2),
            (vec![], 2),
            (vec![1.0; 5], 2),
            (vec![1.0, 2.0, f32::NAN, 3.0], 2),
            (vec![1.0], 0),
        ] {
            assert_eq!(Spread::of(&rows, d).unwrap_err().code(), "bad-input");
        }
    }
}
