//! The class of the most similar labelled embeddings: no training, and as good for a handful as for thousands.

use webjepa_kernels::gemm::{Matrix, Values, product};

use super::{Prediction, Samples, pool, rows};
use crate::{Error, Result};

/// Labelled rows that are compared at once.
const ROWS: usize = 512;
/// Queries that are compared with them at once: half a megabyte of similarities.
const QUERIES: usize = 256;

/// How neighbours vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// How many neighbours vote; all of them if there are fewer.
    pub k: usize,
    /// A neighbour of cosine similarity s has weight exp(s / temperature).
    pub temperature: f64,
}

/// The published evaluation of DINO (Caron et al. 2021), after Wu et al. 2018.
impl Default for Vote {
    fn default() -> Self {
        Self {
            k: 20,
            temperature: 0.07,
        }
    }
}

impl Vote {
    fn check(&self) -> Result<()> {
        if self.k == 0 || !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::BadInput(format!(
                "{} neighbours at temperature {} cannot vote; both must be above 0.",
                self.k, self.temperature
            )));
        }
        Ok(())
    }
}

/// Labelled embeddings, compared by the cosine of their angle. An embedding of zeros is at a right angle to all others.
#[derive(Debug, Clone)]
pub struct Knn {
    /// Scaled to unit length, `[n, d]`.
    rows: Vec<f32>,
    d: usize,
    labels: Vec<usize>,
    classes: usize,
}

/// A labelled row and its cosine similarity.
#[derive(Clone, Copy)]
struct Neighbour {
    similarity: f32,
    row: usize,
}

impl Knn {
    /// # Errors
    /// [`Error::BadInput`] if there are no samples or they cannot be used.
    pub fn new(samples: Samples) -> Result<Self> {
        samples.check()?;
        let mut rows = samples.features.to_vec();
        pool::normalize(&mut rows, samples.d);
        Ok(Self {
            rows,
            d: samples.d,
            labels: samples.labels.to_vec(),
            classes: samples.classes,
        })
    }

    /// The classes of `[n, d]` embeddings; scores are shares of the vote, of sum 1.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the embeddings have another length, are none or are not finite.
    pub fn predict(&self, features: &[f32], vote: Vote) -> Result<Prediction> {
        vote.check()?;
        rows(features, self.d)?;
        let mut queries = features.to_vec();
        pool::normalize(&mut queries, self.d);
        Ok(self.vote(&queries, vote, false))
    }

    /// The classes of the labelled embeddings themselves, each by the others: an honest estimate from a handful.
    ///
    /// # Errors
    /// [`Error::BadInput`] if there is one only.
    pub fn leave_one_out(&self, vote: Vote) -> Result<Prediction> {
        vote.check()?;
        if self.labels.len() < 2 {
            return Err(Error::BadInput(
                "One labelled embedding has no neighbours; label two at least.".into(),
            ));
        }
        Ok(self.vote(&self.rows, vote, true))
    }

    /// Of queries of unit length. With `others`, query i does not see row i.
    fn vote(&self, queries: &[f32], vote: Vote, others: bool) -> Prediction {
        let &Self { d, classes, .. } = self;
        let labels = &self.labels;
        let k = vote.k.min(labels.len() - usize::from(others));
        let mut nearest = vec![Vec::with_capacity(k + 1); queries.len() / d];
        let mut similarities = vec![0.0; QUERIES * ROWS];
        let chunks = queries.chunks(QUERIES * d).zip(nearest.chunks_mut(QUERIES));
        for (chunk, (queries, nearest)) in chunks.enumerate() {
            for (block, rows) in self.rows.chunks(ROWS * d).enumerate() {
                let count = rows.len() / d;
                let similarities = &mut similarities[..nearest.len() * count];
                let matrix = |values, strides| Matrix {
                    values: Values::F32(values),
                    offset: 0,
                    strides,
                };
                let factors = (matrix(queries, [d, 1]), matrix(rows, [1, d]));
                product(similarities, [d, count], factors.0, factors.1, None);
                let of_queries = similarities.chunks_exact(count).zip(nearest.iter_mut());
                for (i, (similarities, nearest)) in of_queries.enumerate() {
                    let itself = others.then_some(chunk * QUERIES + i);
                    for (row, &similarity) in (block * ROWS..).zip(similarities) {
                        if itself != Some(row) {
                            insert(nearest, k, Neighbour { similarity, row });
                        }
                    }
                }
            }
        }
        let mut scores = vec![0.0; nearest.len() * classes];
        for (neighbours, scores) in nearest.iter().zip(scores.chunks_exact_mut(classes)) {
            // Relative to the first, so that no temperature overflows.
            let weight = |n: &Neighbour| {
                let below = f64::from(n.similarity) - f64::from(neighbours[0].similarity);
                libm::exp(below / vote.temperature)
            };
            let total: f64 = neighbours.iter().map(weight).sum();
            for neighbour in neighbours {
                scores[labels[neighbour.row]] += (weight(neighbour) / total) as f32;
            }
        }
        Prediction::of(scores, classes)
    }
}

/// Keeps the `k` most similar in falling order; of equals, those that came first.
#[inline]
fn insert(nearest: &mut Vec<Neighbour>, k: usize, new: Neighbour) {
    if nearest.len() == k && nearest[k - 1].similarity >= new.similarity {
        return;
    }
    let at = nearest.partition_point(|old| old.similarity >= new.similarity);
    nearest.insert(at, new);
    nearest.truncate(k);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Generator, Stream};

    fn samples<'a>(features: &'a [f32], d: usize, labels: &'a [usize]) -> Samples<'a> {
        Samples {
            features,
            d,
            labels,
            classes: 3,
        }
    }

    #[test]
    fn scores_are_the_weights_of_the_neighbours() {
        // Angles 0°, 60°, 90° and 180° to the query, whatever the lengths.
        let root = 3f32.sqrt();
        let features = [2.0, 0.0, 1.0, root, 0.0, 5.0, -1.0, 0.0];
        let knn = Knn::new(samples(&features, 2, &[0, 1, 1, 2])).unwrap();
        let vote = Vote {
            k: 3,
            temperature: 0.5,
        };
        let predicted = knn.predict(&[10.0, 0.0], vote).unwrap();
        let weights = [1.0, 0.5, 0.0].map(|s: f64| (s / 0.5).exp());
        let total: f64 = weights.iter().sum();
        let expected = [weights[0] / total, (weights[1] + weights[2]) / total, 0.0];
        for (score, expected) in predicted.scores.iter().zip(expected) {
            assert!((f64::from(*score) - expected).abs() < 1e-6);
        }
        assert_eq!(predicted.labels, [0]);
        let cold = Vote {
            k: 100,
            temperature: 1e-4,
        };
        let predicted = knn.predict(&[10.0, 0.0, 0.0, 1.0], cold).unwrap();
        assert_eq!(predicted.scores, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let all = Vote {
            k: 4,
            temperature: 1e6,
        };
        let predicted = knn.predict(&[10.0, 0.0], all).unwrap();
        assert_eq!(predicted.labels, [1], "two of four at equal weights");
    }

    #[test]
    fn neighbours_are_those_of_a_full_sort() {
        let mut random = Stream::new(1, "knn", 0);
        for (n, queries, d, k) in [(1100, 7, 5, 10), (130, 300, 17, 1), (3, 1, 1, 20)] {
            let mut bank = vec![0.0; n * d];
            let mut features = vec![0.0; queries * d];
            random.fill_normal(&mut bank);
            random.fill_normal(&mut features);
            let labels: Vec<usize> = (0..n).map(|i| i % 3).collect();
            let knn = Knn::new(samples(&bank, d, &labels)).unwrap();
            let vote = Vote {
                k,
                ..Vote::default()
            };
            let predicted = knn.predict(&features, vote).unwrap();
            let cosine = |a: &[f32], b: &[f32]| {
                let dot = |a: &[f32], b: &[f32]| -> f64 {
                    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
                };
                dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
            };
            for (i, query) in features.chunks_exact(d).enumerate() {
                let mut all: Vec<(f64, usize)> = bank
                    .chunks_exact(d)
                    .zip(&labels)
                    .map(|(row, &label)| (cosine(query, row), label))
                    .collect();
                all.sort_by(|a, b| b.0.total_cmp(&a.0));
                let mut scores = [0.0; 3];
                for (similarity, label) in all.iter().take(k) {
                    scores[*label] += ((similarity - all[0].0) / 0.07).exp();
                }
                let total: f64 = scores.iter().sum();
                for (score, expected) in predicted.scores[i * 3..].iter().zip(scores) {
                    let expected = expected / total;
                    assert!((f64::from(*score) - expected).abs() < 1e-4, "{n} {i}");
                }
            }
        }
    }

    #[test]
    fn leaving_one_out_is_predicting_it_from_the_rest() {
        let mut random = Stream::new(2, "knn", 0);
        let mut features = vec![0.0; 10 * 4];
        random.fill_normal(&mut features);
        let labels: Vec<usize> = (0..10).map(|i| i % 3).collect();
        let vote = Vote {
            k: 4,
            ..Vote::default()
        };
        let knn = Knn::new(samples(&features, 4, &labels)).unwrap();
        let all = knn.leave_one_out(vote).unwrap();
        for out in 0..10 {
            let mut rest = features.clone();
            let query: Vec<f32> = rest.drain(out * 4..(out + 1) * 4).collect();
            let mut labels = labels.clone();
            labels.remove(out);
            let rest = Knn::new(samples(&rest, 4, &labels)).unwrap();
            let one = rest.predict(&query, vote).unwrap();
            assert_eq!(one.scores, all.scores[out * 3..(out + 1) * 3]);
        }
    }

    #[test]
    fn what_cannot_vote_is_refused() {
        let refused = |samples: Samples| Knn::new(samples).unwrap_err().code();
        assert_eq!(refused(samples(&[], 2, &[])), "bad-input");
        assert_eq!(refused(samples(&[1.0; 3], 2, &[0])), "bad-input");
        assert_eq!(refused(samples(&[1.0; 4], 2, &[0])), "bad-input");
        assert_eq!(refused(samples(&[1.0; 4], 2, &[0, 3])), "bad-input");
        assert_eq!(refused(samples(&[1.0, f32::NAN], 2, &[0])), "bad-input");
        let one = Knn::new(samples(&[1.0, 2.0], 2, &[0])).unwrap();
        assert!(one.leave_one_out(Vote::default()).is_err());
        assert!(one.predict(&[1.0], Vote::default()).is_err());
        for (k, temperature) in [(0, 1.0), (1, 0.0), (1, f64::NAN)] {
            assert!(one.predict(&[1.0, 2.0], Vote { k, temperature }).is_err());
        }
        let zero = one.predict(&[0.0, 0.0], Vote::default()).unwrap();
        assert_eq!(zero.scores, [1.0, 0.0, 0.0]);
    }
}
