//! Model predictive path integral control: Williams et al., "Information Theoretic MPC for Model-Based Reinforcement Learning" (2017).
//! Every sample pulls the mean towards itself, the cheaper the more; the standard deviation stays. As EB-JEPA (arXiv 2602.03604) plans, only
//! the cheapest do, and the standard deviation becomes theirs.

use super::{Axis, Candidates, Plan, Space, bad, check_search, lowest};
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
    /// How many of the cheapest samples count, whose weighted standard deviation is the next round's. None: all do, and it stays.
    pub elites: Option<usize>,
    /// The largest standard deviation.
    pub max_std: Option<f64>,
    /// Whether the first sequence of a round is the mean itself.
    pub centre: bool,
}

impl Mppi {
    /// EB-JEPA's planner of its Two Rooms, whose plans cost the sum over all predictions. Its code multiplies with its temperature, 0.005.
    /// There the plan is one of the elites, drawn by their weights; here it is their mean.
    pub fn eb_jepa(action: usize) -> Self {
        Self {
            space: Space::new(90, vec![Axis::free(2.0); action]),
            samples: 200,
            iterations: 20,
            temperature: 1.0 / 0.005,
            elites: Some(20),
            max_std: Some(2.0),
            centre: false,
        }
    }

    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) for an empty or absurd size, for a temperature or largest deviation that is not above 0, and
    /// for elites that are none or more than there are samples.
    pub fn check(&self) -> Result<()> {
        check_search(&self.space, self.samples, self.iterations)?;
        if let Some(elites) = self.elites
            && !(1..=self.samples).contains(&elites)
        {
            return Err(bad(format!(
                "{elites} of {} samples are elites; use at least 1, and no more than there are samples",
                self.samples
            )));
        }
        if let Some(most) = self.max_std
            && !(most.is_finite() && most > 0.0)
        {
            return Err(bad(format!(
                "the largest standard deviation of a planner must be above 0, found {most}"
            )));
        }
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
        let bounded = |std: f64| self.max_std.map_or(std, |most| std.min(most));
        let mut std = self.space.each(|_, axis, _| bounded(axes[axis].scale));
        let mut best = Vec::with_capacity(self.iterations);
        for _ in 0..self.iterations {
            let candidates = self
                .space
                .sampled(self.samples, [&mean, &std], self.centre, random);
            let costs = cost(&candidates).await?;
            let least = lowest(&costs, candidates.count)?;
            let mut counted: Vec<usize> = (0..costs.len()).collect();
            if let Some(elites) = self.elites {
                counted.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]));
                counted.truncate(elites);
            }
            let weight = |&at: &usize| (-(f64::from(costs[at]) - least) / self.temperature).exp();
            let total: f64 = counted.iter().map(weight).sum();
            let numbers = mean.len();
            let weighted = |of: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
                let mut sums = vec![0.0; numbers];
                for at in &counted {
                    let share = weight(at) / total;
                    let sequence = &candidates.data[at * numbers..][..numbers];
                    let pairs = sums.iter_mut().zip(sequence).enumerate();
                    pairs.for_each(|(i, (sum, &v))| *sum += share * of(i, f64::from(v)));
                }
                sums
            };
            mean = weighted(&|_, v| v);
            if self.elites.is_some() {
                let variances = weighted(&|i, v| (v - mean[i]).powi(2));
                std = variances.into_iter().map(|v| bounded(v.sqrt())).collect();
            }
            best.push(least);
        }
        Ok(self.space.plan(&mean, best))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pin;
    use super::super::tests::{now, squares_from};
    use super::*;
    use crate::rng::Stream;

    fn mppi(temperature: f64) -> Mppi {
        Mppi {
            space: Space::new(1, vec![Axis::free(0.5); 2]),
            samples: 20_000,
            iterations: 1,
            temperature,
            elites: None,
            max_std: None,
            centre: true,
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
    fn elites_decide_the_next_deviation() {
        let search = Mppi {
            space: Space::new(1, vec![Axis::free(3.0)]),
            samples: 4,
            iterations: 2,
            temperature: 2.0,
            elites: Some(2),
            max_std: Some(0.125),
            centre: false,
        };
        let mut rounds = Vec::new();
        let cost = async |c: &Candidates| {
            rounds.push(c.data.clone());
            Ok(vec![5.0, 1.0, 9.0, 3.0])
        };
        let plan = now(search.plan(None, &mut Stream::new(3, "plan", 0), cost)).unwrap();
        // The second and the fourth count, with weights 1 and 1/e.
        let shares = [1.0 / (1.0 + (-1f64).exp()), 1.0 / (1.0 + 1f64.exp())];
        let mean =
            |round: &[f32]| shares[0] * f64::from(round[1]) + shares[1] * f64::from(round[3]);
        assert!((plan.actions[0] - mean(&rounds[1])).abs() < 1e-12);
        // The same draws around the first mean; their deviation is that of the elites, or the largest that is allowed.
        let mut random = Stream::new(3, "plan", 0);
        let mut drawn = [0f32; 8];
        random.fill_normal(&mut drawn[..4]);
        random.fill_normal(&mut drawn[4..]);
        let first = mean(&rounds[0]);
        let apart = f64::from(rounds[0][1] - rounds[0][3]);
        let std = (apart.abs() * (shares[0] * shares[1]).sqrt()).min(0.125);
        for at in 0..4 {
            assert!((f64::from(rounds[0][at]) - 0.125 * f64::from(drawn[at])).abs() < 1e-6);
            let expected = first + std * f64::from(drawn[4 + at]);
            assert!((f64::from(rounds[1][at]) - expected).abs() < 1e-6);
        }
        assert_eq!(plan.costs, [1.0, 1.0]);
    }

    #[test]
    fn published_constants() {
        let eb = Mppi::eb_jepa(2);
        assert_eq!((eb.samples, eb.elites, eb.iterations), (200, Some(20), 20));
        assert_eq!((eb.space.horizon, eb.max_std), (90, Some(2.0)));
        assert!((eb.temperature - 200.0).abs() < 1e-9);
        assert_eq!(eb.check(), Ok(()));
    }

    #[test]
    fn bad_temperatures_and_costs_are_refused() {
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = mppi(temperature).check().unwrap_err();
            assert_eq!(error.code(), "bad-config");
        }
        for wrong in [
            Mppi {
                elites: Some(0),
                ..mppi(1.0)
            },
            Mppi {
                elites: Some(20_001),
                ..mppi(1.0)
            },
            Mppi {
                max_std: Some(0.0),
                ..mppi(1.0)
            },
            Mppi {
                max_std: Some(f64::NAN),
                ..mppi(1.0)
            },
        ] {
            assert_eq!(wrong.check().unwrap_err().code(), "bad-config");
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
