//! Model predictive path integral control: Williams et al., "Information Theoretic MPC for Model-Based Reinforcement Learning" (2017).
//! Every sample pulls the mean towards itself, the cheaper the more; the standard deviation stays.

use super::{Candidates, Plan, Space, bad, check_search, lowest};
use crate::Result;
use crate::rng::Generator;

/// A search by path integrals.
#[derive(Clone, Debug, PartialEq)]
pub struct Mppi {
    /// What is searched.
    pub space: Space,
    /// Sequences of a round.
    pub samples: usize,
    /// Rounds.
    pub iterations: usize,
    /// A sample weighs `exp(−(cost − lowest cost) / temperature)`: above 0, in units of the cost.
    pub temperature: f64,
}

impl Mppi {
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) for an empty or absurd size and for a temperature that is not above 0.
    pub fn check(&self) -> Result<()> {
        check_search(&self.space, self.samples, self.iterations)?;
        match self.temperature.is_finite() && self.temperature > 0.0 {
            true => Ok(()),
            false => Err(bad(format!(
                "the temperature of a planner must be above 0, found {}",
                self.temperature
            ))),
        }
    }

    /// Searches from `start [horizon, action]`, or from 0. `cost` gives that of each candidate.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Error::BadInput`](crate::Error::BadInput) for a start of another size, another number of costs than
    /// candidates and a NaN among them; what `cost` fails with.
    pub async fn plan(
        &self,
        start: Option<&[f64]>,
        random: &mut impl Generator,
        mut cost: impl AsyncFnMut(&Candidates) -> Result<Vec<f32>>,
    ) -> Result<Plan> {
        self.check()?;
        let Space { axes, .. } = &self.space;
        let mut mean = self.space.start(start)?;
        let std = self.space.each(|_, axis, _| axes[axis].scale);
        let mut best = Vec::with_capacity(self.iterations);
        for _ in 0..self.iterations {
            let candidates = self
                .space
                .sampled(self.samples, [&mean, &std], true, random);
            let costs = cost(&candidates).await?;
            let least = lowest(&costs, candidates.count)?;
            let weights: Vec<f64> = costs
                .iter()
                .map(|&cost| (-(f64::from(cost) - least) / self.temperature).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            mean.fill(0.0);
            for (sequence, weight) in candidates.data.chunks_exact(mean.len()).zip(&weights) {
                let pairs = mean.iter_mut().zip(sequence);
                pairs.for_each(|(mean, &v)| *mean += weight / total * f64::from(v));
            }
            best.push(least);
        }
        Ok(self.space.plan(&mean, best))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{now, squares_from};
    use super::super::{Axis, Pin};
    use super::*;
    use crate::rng::Stream;

    fn mppi(temperature: f64) -> Mppi {
        Mppi {
            space: Space {
                horizon: 1,
                axes: vec![Axis::free(0.5); 2],
            },
            samples: 20_000,
            iterations: 1,
            temperature,
        }
    }

    #[test]
    fn one_round_is_the_posterior_of_a_gaussian() {
        // Prior N(0, s²) and weights exp(−(a − g)² / T) make the mean g · s² / (s² + T/2).
        let goal = [0.6, -0.4];
        let cost = squares_from(&goal);
        let mut random = Stream::new(1, "plan", 0);
        let search = mppi(0.5);
        let plan = search.plan(None, &mut random, async |c: &Candidates| Ok(cost(c)));
        let plan = now(plan).unwrap();
        for (found, goal) in plan.actions.iter().zip(goal) {
            let expected = goal * 0.25 / (0.25 + 0.25);
            // Five standard errors of a mean of some 10,000 samples that count.
            assert!((found - expected).abs() < 0.02, "{found} for {expected}");
        }
    }

    #[test]
    fn rounds_reach_the_optimum_and_pins_hold() {
        let mut search = Mppi {
            samples: 500,
            iterations: 60,
            ..mppi(0.01)
        };
        search.space.axes[1].pin = Some(Pin {
            from: 0,
            value: 0.25,
        });
        let cost = squares_from(&[3.0, 0.0]);
        let mut random = Stream::new(2, "plan", 0);
        let plan = search.plan(None, &mut random, async |c: &Candidates| Ok(cost(c)));
        let plan = now(plan).unwrap();
        assert!((plan.actions[0] - 3.0).abs() < 0.05, "{plan:?}");
        assert!((plan.actions[1] - 0.25).abs() < 1e-6, "{plan:?}");
    }

    #[test]
    fn bad_temperatures_and_costs_are_refused() {
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = mppi(temperature).check().unwrap_err();
            assert_eq!(error.code(), "bad-config");
        }
        let search = Mppi {
            samples: 3,
            ..mppi(1.0)
        };
        for costs in [vec![0.0; 2], vec![0.0, f32::NAN, 0.0]] {
            let mut random = Stream::new(0, "plan", 0);
            let plan = search.plan(None, &mut random, async |_: &Candidates| Ok(costs.clone()));
            assert_eq!(now(plan).unwrap_err().code(), "bad-input");
        }
    }
}
