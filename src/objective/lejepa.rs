//! The total losses of LeJEPA: views of one picture come together, and all of them stay Gaussian. No teacher, no predictor
//! and no stopped gradient. The published forms differ, and a weight does not carry over from one to another.

use super::sigreg::{Directions, SigReg, mean};
use super::{checked, combined};
use crate::{Error, Result};

/// The weight of SIGReg in LeJEPA's minimal example and in stable-pretraining.
pub const LAMBDA: f64 = 0.02;

/// How the two terms are made and added. The invariance is the mean of `(centre − z)²` over all elements of all views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// LeJEPA's minimal example: the centre is the mean of all views, each view is a test of its own, and the loss is
    /// `(1 − λ)·invariance + λ·sigreg`.
    Minimal,
    /// Algorithm 2 of the paper: the centre is the mean of the global views, the first ones; the rest as in `Minimal`.
    Paper {
        /// Number of global views.
        global_views: usize,
    },
    /// stable-pretraining: the centre as in `Paper`, the samples of all views are one test, and the loss is
    /// `invariance + λ·sigreg`.
    StablePretraining {
        /// Number of global views.
        global_views: usize,
    },
}

/// A loss of LeJEPA.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeJepa {
    /// How the two terms are made and added.
    pub form: Form,
    /// The weight of SIGReg: 0 to 1.
    pub lambda: f64,
    /// The regulariser.
    pub sigreg: SigReg,
}

/// The loss of a batch, its terms before they are weighted, and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// What is minimised.
    pub loss: f64,
    /// How far views are from their centre.
    pub invariance: f64,
    /// How far the embeddings are from a Gaussian; see [`sigreg`](super::sigreg) on how to read it.
    pub sigreg: f64,
    /// Of `loss` with respect to the embeddings, `[views, n, d]`.
    pub gradient: Vec<f32>,
}

impl LeJepa {
    /// The loss of projected embeddings `z [views, n, d]`, global views first.
    ///
    /// # Errors
    /// [`Error::BadConfig`] when a constant is out of its range, or there are fewer views than global views;
    /// [`Error::BadInput`] when `z` is not `[views, n, d]` or the directions are of another `d`.
    pub fn evaluate(
        &self,
        z: &[f32],
        [views, n, d]: [usize; 3],
        directions: &Directions,
    ) -> Result<Losses> {
        checked("embeddings", z, &[views, n, d])?;
        let (centred, tests, share) = match self.form {
            Form::Minimal => (views, [views, n, d], 1.0 - self.lambda),
            Form::Paper { global_views } => (global_views, [views, n, d], 1.0 - self.lambda),
            Form::StablePretraining { global_views } => (global_views, [1, views * n, d], 1.0),
        };
        if !(0.0..=1.0).contains(&self.lambda) {
            return Err(Error::BadConfig(format!(
                "lambda of LeJEPA is {}; use a number from 0 to 1",
                self.lambda
            )));
        }
        if !(1..=views).contains(&centred) {
            return Err(Error::BadConfig(format!(
                "{centred} of {views} views are global; use at least 1, and no more than there are views"
            )));
        }
        let mut regular = vec![0.0; z.len()];
        let statistics = self.sigreg.run(z, tests, directions, Some(&mut regular))?;
        let (invariance, spread) = invariance(z, views, centred);
        let sigreg = mean(&statistics);
        Ok(Losses {
            loss: share * invariance + self.lambda * sigreg,
            invariance,
            sigreg,
            gradient: combined(&[(share, &spread), (self.lambda, &regular)]),
        })
    }
}

/// The mean square distance of all views to the mean of the first `centred`, and its gradient.
fn invariance(z: &[f32], views: usize, centred: usize) -> (f64, Vec<f64>) {
    let (count, size) = (z.len() as f64, z.len() / views);
    let mut value = 0.0;
    let mut gradient = vec![0.0; z.len()];
    for i in 0..size {
        let of = |view: usize| f64::from(z[view * size + i]);
        let centre = (0..centred).map(of).sum::<f64>() / centred as f64;
        let mut pull = 0.0;
        for view in 0..views {
            let away = of(view) - centre;
            value += away * away / count;
            gradient[view * size + i] = 2.0 * away / count;
            pull += away;
        }
        // Each view of the centre moves it, and with it the distance of every view.
        for view in 0..centred {
            gradient[view * size + i] -= 2.0 * pull / (centred as f64 * count);
        }
    }
    (value, gradient)
}

#[cfg(test)]
mod tests {
    use super::super::difference::{assert_gradient, points};
    use super::{Directions, Form, LAMBDA, LeJepa, SigReg};
    use crate::rng::Stream;

    fn with(form: Form, lambda: f64) -> LeJepa {
        LeJepa {
            form,
            lambda,
            sigreg: SigReg {
                slices: 3,
                ..SigReg::preset("minimal").unwrap()
            },
        }
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        for form in [
            Form::Minimal,
            Form::Paper { global_views: 1 },
            Form::Paper { global_views: 2 },
            Form::StablePretraining { global_views: 2 },
        ] {
            for (seed, shape) in [[2, 1, 1], [2, 5, 1], [3, 1, 3], [5, 3, 2]]
                .into_iter()
                .enumerate()
            {
                for lambda in [LAMBDA, 0.7] {
                    let loss = with(form, lambda);
                    let generator = &mut Stream::new(seed as u64, "", 0);
                    let directions = loss.sigreg.draw(shape[2], generator).unwrap();
                    let z = points(seed as u32, shape.iter().product());
                    let losses = loss.evaluate(&z, shape, &directions).unwrap();
                    assert_gradient(&z, &losses.gradient, |z| {
                        loss.evaluate(z, shape, &directions).unwrap().loss
                    });
                }
            }
        }
    }

    #[test]
    fn the_invariance_of_three_views() {
        let along = Directions::from_columns(&[1.0], [1, 1]).unwrap();
        let of = |form| {
            let losses = with(form, 0.0).evaluate(&[0.0, 3.0, 6.0], [3, 1, 1], &along);
            losses.unwrap().invariance
        };
        // Centres 3, 1.5 and 0.
        assert_eq!(of(Form::Minimal), 6.0);
        assert_eq!(of(Form::Paper { global_views: 2 }), 8.25);
        assert_eq!(of(Form::StablePretraining { global_views: 1 }), 15.0);
    }

    #[test]
    fn the_terms_are_weighted_as_published() {
        let (z, shape) = (points(1, 3 * 4 * 2), [3, 4, 2]);
        let sigreg = with(Form::Minimal, 0.0).sigreg;
        let directions = sigreg.draw(2, &mut Stream::new(1, "", 0)).unwrap();
        let separate = sigreg.evaluate(&z, shape, &directions).unwrap().mean;
        let joint = sigreg.evaluate(&z, [1, 12, 2], &directions).unwrap().mean;
        for (form, test, share) in [
            (Form::Minimal, separate, 0.75),
            (Form::Paper { global_views: 1 }, separate, 0.75),
            (Form::StablePretraining { global_views: 1 }, joint, 1.0),
        ] {
            let losses = with(form, 0.25).evaluate(&z, shape, &directions).unwrap();
            assert_eq!(losses.sigreg, test);
            assert_eq!(losses.loss, share * losses.invariance + 0.25 * test);
        }
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let along = Directions::from_columns(&[1.0], [1, 1]).unwrap();
        let code = |form, lambda, shape| {
            let losses = with(form, lambda).evaluate(&[0.0; 6], shape, &along);
            losses.map_err(|e| e.code()).map(|_| ())
        };
        let paper = |global_views| Form::Paper { global_views };
        assert_eq!(code(paper(3), 0.5, [3, 2, 1]), Ok(()));
        assert_eq!(code(paper(0), 0.5, [3, 2, 1]), Err("bad-config"));
        assert_eq!(code(paper(4), 0.5, [3, 2, 1]), Err("bad-config"));
        assert_eq!(code(paper(1), 1.5, [3, 2, 1]), Err("bad-config"));
        assert_eq!(code(paper(1), f64::NAN, [3, 2, 1]), Err("bad-config"));
        assert_eq!(code(paper(1), 0.5, [3, 1, 2]), Err("bad-input"));
        assert_eq!(code(paper(1), 0.5, [3, 1, 1]), Err("bad-input"));
    }
}
