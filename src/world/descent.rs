//! Planning along the gradient of the cost, which a differentiable world model gives: gradient descent from several starts at once, of
//! which the cheapest sequence that was seen is the plan.

use super::{Axis, Candidates, Plan, Space, bad, check_search, lowest};
use crate::rng::Generator;
use crate::{Error, Result};

/// A search by gradient descent.
#[derive(Clone, Debug, PartialEq)]
pub struct Descent {
    /// What is searched. The scale of an axis is how far apart the starts are.
    pub space: Space,
    /// Starts: the given one, or 0, and random ones around it.
    pub starts: usize,
    /// Steps of each.
    pub iterations: usize,
    /// What the gradient is multiplied with in a step.
    pub rate: f64,
}

/// What candidates cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slopes {
    /// One for each.
    pub costs: Vec<f32>,
    /// The gradient of each one's cost, `[count, horizon, action]`; none for planners that need none.
    pub gradients: Vec<f32>,
}

impl Descent {
    /// DINO-WM's planner along gradients: one sequence, at the rate `rate` of its mean square error, which is 1.
    pub fn dino_wm(action: usize, rate: f64) -> Self {
        Self {
            space: Space::new(5, vec![Axis::free(1.0); action]),
            starts: 1,
            iterations: 1000,
            rate,
        }
    }

    /// # Errors
    /// [`Error::BadConfig`] for an empty or absurd size and for a rate that is not above 0.
    pub fn check(&self) -> Result<()> {
        check_search(&self.space, self.starts, self.iterations)?;
        match self.rate.is_finite() && self.rate > 0.0 {
            true => Ok(()),
            false => Err(bad(format!(
                "the rate of a planner must be above 0, found {}",
                self.rate
            ))),
        }
    }

    /// Searches from `start [horizon, action]`, or from 0. `cost` gives that of each candidate, and its gradient.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Error::BadInput`] for a start of another size, another number of costs or of their gradients than
    /// there are candidates or numbers in them, and a NaN among them; what `cost` fails with.
    pub async fn plan(
        &self,
        start: Option<&[f64]>,
        random: &mut impl Generator,
        mut cost: impl AsyncFnMut(&Candidates) -> Result<Slopes>,
    ) -> Result<Plan> {
        self.check()?;
        let Space { axes, .. } = &self.space;
        let mut found = self.space.start(start)?;
        let std = self.space.each(|_, axis, _| axes[axis].scale);
        let mut candidates = self
            .space
            .sampled(self.starts, [&found, &std], true, random);
        let numbers = found.len();
        let mut costs = Vec::with_capacity(self.iterations);
        let mut least = f64::INFINITY;
        for _ in 0..self.iterations {
            let slopes = cost(&candidates).await?;
            let lowest = lowest(&slopes.costs, self.starts)?;
            let wrong = slopes.gradients.iter().any(|g| !g.is_finite());
            if wrong || slopes.gradients.len() != candidates.data.len() {
                return Err(Error::BadInput(format!(
                    "the gradients of the costs must be {} finite numbers, as the candidates have",
                    candidates.data.len()
                )));
            }
            let at = |cost: &f32| f64::from(*cost) == lowest;
            if let (true, Some(best)) = (lowest < least, slopes.costs.iter().position(at)) {
                let sequence = &candidates.data[best * numbers..][..numbers];
                found = sequence.iter().map(|&v| f64::from(v)).collect();
                least = lowest;
            }
            costs.push(lowest);
            let sequences = candidates.data.chunks_exact_mut(numbers);
            for (sequence, slope) in sequences.zip(slopes.gradients.chunks_exact(numbers)) {
                let down = |at: usize| f64::from(sequence[at]) - self.rate * f64::from(slope[at]);
                let moved = self.space.each(|_, _, at| down(at));
                let narrow = sequence.iter_mut().zip(self.space.admitted(&moved));
                narrow.for_each(|(value, moved)| *value = moved as f32);
            }
        }
        Ok(self.space.plan(&found, costs))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{now, squares_from};
    use super::*;
    use crate::rng::Stream;

    fn descent() -> Descent {
        Descent {
            space: Space::new(2, vec![Axis::free(1.0), Axis::limited(1.0, 0.5)]),
            starts: 3,
            iterations: 40,
            rate: 0.25,
        }
    }

    fn slopes(target: [f64; 4], candidates: &Candidates) -> Slopes {
        let away = |(at, &v): (usize, &f32)| 2.0 * (v - target[at % 4] as f32);
        Slopes {
            costs: squares_from(&target)(candidates),
            gradients: candidates.data.iter().enumerate().map(away).collect(),
        }
    }

    #[test]
    fn it_descends_to_the_optimum_and_stays_within_limits() {
        let cost = async |c: &Candidates| Ok(slopes([1.5, 0.25, -2.0, 3.0], c));
        let plan = now(descent().plan(None, &mut Stream::new(1, "plan", 0), cost)).unwrap();
        for (found, wanted) in plan.actions.iter().zip([1.5, 0.25, -2.0, 0.5]) {
            // What the f32 of a cost of 6.25 tells apart: √(6.25 · 2⁻²³).
            assert!((found - wanted).abs() < 1e-3, "{found} for {wanted}");
        }
        // Each step halves the distance to the optimum of a free axis.
        assert!(plan.costs.windows(2).all(|pair| pair[1] <= pair[0]));
    }

    #[test]
    fn bad_rates_and_gradients_are_refused() {
        for rate in [0.0, -0.1, f64::NAN] {
            let wrong = Descent { rate, ..descent() };
            assert_eq!(wrong.check().unwrap_err().code(), "bad-config");
        }
        for gradients in [vec![0.0; 11], vec![f32::NAN; 12]] {
            let cost = async |_: &Candidates| {
                Ok(Slopes {
                    costs: vec![0.0; 3],
                    gradients: gradients.clone(),
                })
            };
            let plan = now(descent().plan(None, &mut Stream::new(1, "plan", 0), cost));
            assert_eq!(plan.unwrap_err().code(), "bad-input");
        }
    }
}
