//! The loss of LeWorldModel (arXiv 2603.19312): predictions come near the embeddings that follow, and embeddings stay Gaussian. No teacher
//! and no stopped gradient: targets move, too.

use super::distance::Distance;
use super::sigreg::{Directions, SigReg};
use super::{checked, combined};
use crate::{Error, Result};

/// The published weight of SIGReg.
pub const WEIGHT: f64 = 0.09;

/// `mean (prediction − embedding)² + weight · sigreg + similarity · mean (next embedding − embedding)²`, with one test of SIGReg for each time
/// step, across the batch. The last term is not in the published loss: it is the time similarity of PLDM (arXiv 2502.14819), by which
/// embeddings differ the more the longer the way between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeWmLoss {
    /// The weight of SIGReg, from 0 on.
    pub weight: f64,
    /// The regulariser.
    pub sigreg: SigReg,
    /// The weight of the differences between one step and the next, from 0 on; 0 as published.
    pub similarity: f64,
}

/// The loss of a batch, its terms before they are weighted, and its gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// What is minimised.
    pub loss: f64,
    /// The mean square error of predictions.
    pub prediction: f64,
    /// How far the embeddings of each time step are from a Gaussian; see [`sigreg`](super::sigreg) on how to read it.
    pub sigreg: f64,
    /// The mean square difference between the embeddings of one step and the next; 0 where there is one step only.
    pub similarity: f64,
    /// Of `loss` with respect to the embeddings, `[batch, steps, d]`: as targets, of SIGReg, and as neighbours.
    pub embeddings: Vec<f32>,
    /// Of `loss` with respect to the predictions, `[batch, predicted, d]`.
    pub predictions: Vec<f32>,
}

impl LeWmLoss {
    /// # Errors
    /// [`Error::BadConfig`] for a weight below 0, or one that is not finite.
    pub fn check(&self) -> Result<()> {
        let weights = [("SIGReg", self.weight), ("similarity", self.similarity)];
        match weights.iter().find(|(_, w)| !(w.is_finite() && *w >= 0.0)) {
            None => Ok(()),
            Some((name, weight)) => Err(Error::BadConfig(format!(
                "the weight of {name} is {weight}: use a number from 0 on"
            ))),
        }
    }

    /// The loss of embeddings `[batch, steps, d]` and of predictions `[batch, predicted, d]` of the second one and those after it.
    ///
    /// # Errors
    /// [`Error::BadConfig`] when a constant is out of its range; [`Error::BadInput`] for slices of other sizes, as many predictions as
    /// steps or more, or directions of another `d`.
    pub fn evaluate(
        &self,
        embeddings: &[f32],
        predictions: &[f32],
        [batch, steps, d]: [usize; 3],
        directions: &Directions,
    ) -> Result<Losses> {
        let count = checked("embeddings", embeddings, &[batch, steps, d])?;
        let predicted = predictions.len() / (batch * d);
        checked("predictions", predictions, &[batch, predicted, d])?;
        if predicted >= steps {
            return Err(Error::BadInput(format!(
                "{predicted} predictions are not of the steps after the first, of which there are {steps} in all"
            )));
        }
        self.check()?;
        // Of a window's embeddings those after its first.
        let (window, targets) = (steps * d, d..(1 + predicted) * d);
        let wanted: Vec<f32> = embeddings
            .chunks_exact(window)
            .flat_map(|window| &window[targets.clone()])
            .copied()
            .collect();
        let compared = Distance::Mse.between(predictions, &wanted, [batch * predicted, d])?;
        // SIGReg goes by time step: [steps, batch, d].
        let place = |i: usize| i / window * d + i % window / d * batch * d + i % d;
        let mut by_step = vec![0.0; count];
        for (i, &value) in embeddings.iter().enumerate() {
            by_step[place(i)] = value;
        }
        let regular = self
            .sigreg
            .evaluate(&by_step, [steps, batch, d], directions)?;
        // The error is symmetric: a target is pulled the other way.
        let mut pull = vec![0.0; count];
        let windows = pull.chunks_exact_mut(window);
        let pulled = windows.flat_map(|window| &mut window[targets.clone()]);
        for (pull, &gradient) in pulled.zip(&compared.gradient) {
            *pull = -f64::from(gradient);
        }
        let spread: Vec<f64> = (0..count)
            .map(|i| f64::from(regular.gradient[place(i)]))
            .collect();
        let (similarity, closing) = differences(embeddings, [window, d]);
        Ok(Losses {
            loss: compared.mean + self.weight * regular.mean + self.similarity * similarity,
            prediction: compared.mean,
            sigreg: regular.mean,
            similarity,
            embeddings: combined(&[
                (1.0, &pull),
                (self.weight, &spread),
                (self.similarity, &closing),
            ]),
            predictions: compared.gradient,
        })
    }
}

/// The mean square difference between rows of `d` numbers and those after them in their window, and its gradient.
fn differences(embeddings: &[f32], [window, d]: [usize; 2]) -> (f64, Vec<f64>) {
    let count = (embeddings.len() / window * (window - d)).max(1) as f64;
    let (mut sum, mut gradient) = (0.0, vec![0.0; embeddings.len()]);
    for at in (0..embeddings.len()).filter(|at| at % window >= d) {
        let difference = f64::from(embeddings[at]) - f64::from(embeddings[at - d]);
        sum += difference * difference;
        gradient[at] += 2.0 * difference / count;
        gradient[at - d] -= 2.0 * difference / count;
    }
    (sum / count, gradient)
}

#[cfg(test)]
mod tests {
    use super::super::difference::{assert_gradient, points};
    use super::*;
    use crate::rng::Stream;

    fn loss(weight: f64) -> LeWmLoss {
        LeWmLoss {
            weight,
            sigreg: SigReg {
                slices: 3,
                ..SigReg::preset("lewm").unwrap()
            },
            similarity: 0.0,
        }
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        let cases = [
            ([3, 2, 1], 1),
            ([2, 4, 3], 3),
            ([1, 3, 2], 2),
            ([2, 4, 2], 1),
        ];
        for (seed, (shape, predicted)) in cases.into_iter().enumerate() {
            let [batch, steps, d] = shape;
            let loss = LeWmLoss {
                similarity: 0.4,
                ..loss(0.3)
            };
            let random = &mut Stream::new(seed as u64, "", 0);
            let directions = loss.sigreg.draw(d, random).unwrap();
            let embeddings = points(seed as u32, batch * steps * d);
            let predictions = points(seed as u32 + 9, batch * predicted * d);
            let of = |e: &[f32], p: &[f32]| loss.evaluate(e, p, shape, &directions).unwrap();
            let losses = of(&embeddings, &predictions);
            assert_gradient(&embeddings, &losses.embeddings, |e| {
                of(e, &predictions).loss
            });
            assert_gradient(&predictions, &losses.predictions, |p| {
                of(&embeddings, p).loss
            });
        }
    }

    #[test]
    fn each_step_is_a_test_of_its_own() {
        // Both windows are alike at the first step and opposite at the second.
        let embeddings = [1.0, 2.0, 1.0, -2.0];
        let along = Directions::from_columns(&[1.0], [1, 1]).unwrap();
        let sigreg = loss(0.5).sigreg;
        let losses = loss(0.5).evaluate(&embeddings, &[3.0, -3.0], [2, 2, 1], &along);
        let losses = losses.unwrap();
        let alone = |x: &[f32]| sigreg.evaluate(x, [1, 2, 1], &along).unwrap().mean;
        let expected = (alone(&[1.0, 1.0]) + alone(&[2.0, -2.0])) / 2.0;
        assert!((losses.sigreg - expected).abs() < 1e-12);
        assert_eq!(losses.prediction, 1.0);
        assert_eq!(losses.loss, 1.0 + 0.5 * losses.sigreg);
        // Steps of 1 and −3.
        assert_eq!(losses.similarity, 5.0);
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let along = Directions::from_columns(&[1.0], [1, 1]).unwrap();
        let code = |weight, predictions: usize, shape| {
            let losses = loss(weight).evaluate(&[0.0; 6], &vec![0.0; predictions], shape, &along);
            losses.map_err(|e| e.code()).map(|_| ())
        };
        assert_eq!(code(0.09, 4, [2, 3, 1]), Ok(()));
        assert_eq!(code(0.09, 2, [2, 3, 1]), Ok(()));
        assert_eq!(code(0.09, 3, [2, 3, 1]), Err("bad-input"));
        assert_eq!(code(0.09, 6, [2, 3, 1]), Err("bad-input"));
        assert_eq!(code(0.09, 0, [6, 1, 1]), Err("bad-input"));
        assert_eq!(code(0.09, 4, [2, 0, 1]), Err("bad-input"));
        assert_eq!(code(0.09, 2, [1, 3, 2]), Err("bad-input"));
        assert_eq!(code(-0.1, 4, [2, 3, 1]), Err("bad-config"));
        assert_eq!(code(f64::NAN, 4, [2, 3, 1]), Err("bad-config"));
        for similarity in [-0.1, f64::INFINITY] {
            let wrong = LeWmLoss {
                similarity,
                ..loss(0.0)
            };
            assert_eq!(wrong.check().unwrap_err().code(), "bad-config");
        }
    }
}
