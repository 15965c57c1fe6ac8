//! The cross-entropy method: sequences are drawn from a Gaussian of independent numbers, which then moves to the cheapest of them.

use super::{Axis, Candidates, Plan, Space, bad, check_search, lowest};
use crate::rng::Generator;
use crate::{Error, Result};

/// A search by the cross-entropy method.
#[derive(Clone, Debug, PartialEq)]
pub struct Cem {
    /// What is searched.
    pub space: Space,
    /// Sequences of a round.
    pub samples: usize,
    /// The cheapest ones, to whose mean and standard deviation the Gaussian moves.
    pub elites: usize,
    /// Rounds.
    pub iterations: usize,
    /// What the mean and the standard deviation keep of themselves in a round: `new = elite · (1 − momentum) + old · momentum`. Axes may have
    /// others.
    pub momentum: [f64; 2],
    /// Whether the first sequence of a round is the mean itself.
    pub centre: bool,
}

/// Independent Gaussians of all numbers of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// `[horizon, action]`.
    pub mean: Vec<f64>,
    /// `[horizon, action]`.
    pub std: Vec<f64>,
}

impl Cem {
    /// V-JEPA 2-AC's planner of a robot arm, with the values of the published notebook. An action is a change of position (m), of
    /// rotation (rad), which is not searched, and of the gripper.
    pub fn vjepa2_ac() -> Self {
        /// `maxnorm`: how far the arm moves along an axis in a step.
        const FARTHEST: f64 = 0.05;
        let gripper = Axis {
            dead_zone: 0.25,
            ..Axis::limited(1.0, 0.75)
        };
        let mut axes = vec![Axis::limited(FARTHEST, FARTHEST); 3];
        axes.extend([Axis::pinned(0.0); 3]);
        axes.push(gripper);
        Self {
            space: Space::new(2, axes),
            samples: 400,
            elites: 10,
            iterations: 10,
            momentum: [0.15, 0.15],
            centre: false,
        }
    }

    /// LeWorldModel's planner of z-scored action blocks of `action` numbers. Its code calls the standard deviation `var`.
    pub fn lewm(action: usize) -> Self {
        Self {
            space: Space::new(5, vec![Axis::free(1.0); action]),
            samples: 300,
            elites: 30,
            iterations: 30,
            momentum: [0.0, 0.0],
            centre: true,
        }
    }

    /// EB-JEPA's planner of its Two Rooms (arXiv 2602.03604), whose plans cost the sum over all predictions. Its code calls the standard
    /// deviation `var_scale`.
    pub fn eb_jepa(action: usize) -> Self {
        Self {
            space: Space {
                max_norm: Some(2.45),
                ..Space::new(90, vec![Axis::free(1.5); action])
            },
            samples: 200,
            elites: 20,
            iterations: 20,
            momentum: [0.0, 0.0],
            centre: false,
        }
    }

    /// # Errors
    /// [`Error::BadConfig`] for an empty or absurd size, for fewer samples than elites and fewer elites than
    /// two, of which there is no standard deviation, and for a momentum outside 0 to 1.
    pub fn check(&self) -> Result<()> {
        check_search(&self.space, self.samples, self.iterations)?;
        if !(2..=self.samples).contains(&self.elites) {
            return Err(bad(format!(
                "{} of {} samples are elites; use at least 2, and no more than there are samples",
                self.elites, self.samples
            )));
        }
        let own = self.space.axes.iter().filter_map(|axis| axis.momentum);
        match own
            .chain([self.momentum])
            .flatten()
            .find(|m| !(0.0..=1.0).contains(m))
        {
            None => Ok(()),
            Some(wrong) => Err(bad(format!(
                "the momenta of a planner are numbers from 0 to 1, not {wrong}"
            ))),
        }
    }

    /// The distribution before the first round: around `start [horizon, action]`, or around 0.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Error::BadInput`] for a start of another size.
    pub fn first(&self, start: Option<&[f64]>) -> Result<Distribution> {
        self.check()?;
        let axes = &self.space.axes;
        Ok(Distribution {
            mean: self.space.start(start)?,
            std: self.space.each(|_, axis, _| axes[axis].scale),
        })
    }

    /// A round's sequences.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Error::BadInput`] for a distribution of another size.
    pub fn sample(&self, from: &Distribution, random: &mut impl Generator) -> Result<Candidates> {
        self.check()?;
        self.check_sizes(from)?;
        let gaussian = [&from.mean[..], &from.std[..]];
        Ok(self
            .space
            .sampled(self.samples, gaussian, self.centre, random))
    }

    /// Moves a distribution to the cheapest candidates, whose numbers it gives, the best first. Their standard deviation is the unbiased
    /// one.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a distribution or candidates of another size, fewer candidates than elites, another number of costs than
    /// candidates, and for a NaN among them.
    pub fn update(
        &self,
        distribution: &mut Distribution,
        candidates: &Candidates,
        costs: &[f32],
    ) -> Result<Vec<usize>> {
        self.check()?;
        self.check_sizes(distribution)?;
        let Candidates { data, count, .. } = candidates;
        lowest(costs, *count)?;
        if data.len() != count * self.space.numbers() || *count < self.elites {
            return Err(Error::BadInput(format!(
                "{count} candidates of {} numbers are not {} or more of {} numbers each",
                data.len(),
                self.elites,
                self.space.numbers()
            )));
        }
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]));
        order.truncate(self.elites);
        let numbers = self.space.numbers();
        let count = order.len() as f64;
        for at in 0..numbers {
            let axis = &self.space.axes[at % self.space.axes.len()];
            let [keep_mean, keep_std] = axis.momentum.unwrap_or(self.momentum);
            let of_elites = || order.iter().map(|&e| f64::from(data[e * numbers + at]));
            let mean = of_elites().sum::<f64>() / count;
            let squares = of_elites().map(|v| (v - mean).powi(2)).sum::<f64>();
            let std = (squares / (count - 1.0)).sqrt();
            let kept = |momentum: f64, new: f64, old: f64| new * (1.0 - momentum) + old * momentum;
            distribution.mean[at] = kept(keep_mean, mean, distribution.mean[at]);
            distribution.std[at] = kept(keep_std, std, distribution.std[at]);
        }
        Ok(order)
    }

    fn check_sizes(&self, distribution: &Distribution) -> Result<()> {
        let Distribution { mean, std } = distribution;
        let numbers = self.space.numbers();
        match mean.len() == numbers && std.len() == numbers {
            true => Ok(()),
            false => Err(Error::BadInput(format!(
                "a distribution of {} means and {} deviations is not of {numbers} numbers",
                mean.len(),
                std.len()
            ))),
        }
    }

    /// Searches from `start [horizon, action]`, or from 0. `cost` gives that of each candidate.
    ///
    /// # Errors
    /// As [`first`](Self::first) and [`update`](Self::update), and what `cost` fails with.
    pub async fn plan(
        &self,
        start: Option<&[f64]>,
        random: &mut impl Generator,
        mut cost: impl AsyncFnMut(&Candidates) -> Result<Vec<f32>>,
    ) -> Result<Plan> {
        let mut distribution = self.first(start)?;
        let mut best = Vec::with_capacity(self.iterations);
        for _ in 0..self.iterations {
            let candidates = self.sample(&distribution, random)?;
            let costs = cost(&candidates).await?;
            let elites = self.update(&mut distribution, &candidates, &costs)?;
            best.push(f64::from(costs[elites[0]]));
        }
        Ok(self.space.plan(&distribution.mean, best))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{now, squares_from};
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn a_quadratic_cost_is_brought_to_its_optimum() {
        let target = [0.7, -1.2, 0.1, 2.0];
        let cem = Cem {
            space: Space::new(2, vec![Axis::free(1.0); 2]),
            ..Cem::lewm(2)
        };
        let plan = |seed, start: Option<&[f64]>| {
            let cost = squares_from(&target);
            let mut random = Stream::new(seed, "plan", 0);
            now(cem.plan(start, &mut random, async |c: &Candidates| Ok(cost(c)))).unwrap()
        };
        let found = plan(1, None);
        for (found, wanted) in found.actions.iter().zip(target) {
            assert!((found - wanted).abs() < 1e-3, "{found} for {wanted}");
        }
        assert_eq!(found.costs.len(), 30);
        assert_eq!(found, plan(1, None));
        assert_ne!(found, plan(2, None));
        // A search that starts at the optimum has it as its first candidate.
        assert!(plan(3, Some(&target)).costs[0] < 1e-10);
    }

    #[test]
    fn an_optimum_out_of_reach_is_met_at_the_limit() {
        let target = [0.2, -0.2, 0.01, 1.0, 1.0, 1.0, 0.4];
        let cem = Cem {
            space: Space {
                horizon: 1,
                ..Cem::vjepa2_ac().space
            },
            ..Cem::vjepa2_ac()
        };
        let cost = squares_from(&target);
        let mut random = Stream::new(4, "plan", 0);
        let plan = now(cem.plan(None, &mut random, async |c: &Candidates| Ok(cost(c)))).unwrap();
        let wanted = [0.05, -0.05, 0.01, 0.0, 0.0, 0.0, 0.4];
        for (axis, (found, wanted)) in plan.actions.iter().zip(wanted).enumerate() {
            let allowed = if axis == 6 { 0.05 } else { 0.01 };
            assert!((found - wanted).abs() < allowed, "axis {axis}: {found}");
        }
    }

    #[test]
    fn a_round_mixes_the_elites_with_what_was() {
        let cem = Cem {
            space: Space::new(1, vec![Axis::free(1.0)]),
            samples: 4,
            elites: 2,
            momentum: [0.25, 0.5],
            ..Cem::lewm(1)
        };
        let mut distribution = cem.first(None).unwrap();
        let candidates = Candidates {
            data: vec![9.0, 1.0, -7.0, 3.0],
            count: 4,
            horizon: 1,
            action: 1,
        };
        let elites = cem.update(
            &mut distribution,
            &candidates,
            &[5.0, 2.0, f32::INFINITY, 1.0],
        );
        assert_eq!(elites, Ok(vec![3, 1]));
        // The elites 3 and 1 have the mean 2 and the unbiased deviation √2.
        assert_eq!(distribution.mean, [1.5]);
        assert!((distribution.std[0] - (0.5 + 0.5 * 2f64.sqrt())).abs() < 1e-12);
    }

    #[test]
    fn an_axis_keeps_what_it_is_told_to() {
        let gripper = Axis {
            momentum: Some([0.15, 0.15]),
            ..Axis::free(1.0)
        };
        // The defaults of V-JEPA 2-AC's function, where its notebook has others.
        let cem = Cem {
            space: Space::new(2, vec![Axis::free(1.0), gripper]),
            samples: 2,
            elites: 2,
            momentum: [0.25, 0.95],
            ..Cem::lewm(2)
        };
        let mut distribution = cem.first(Some(&[1.0, 1.0, 0.0, 0.0])).unwrap();
        let candidates = Candidates {
            data: vec![1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0],
            count: 2,
            horizon: 2,
            action: 2,
        };
        cem.update(&mut distribution, &candidates, &[0.0, 0.0])
            .unwrap();
        // The elites have the mean 2 and the deviation √2.
        let near = |found: &[f64], wanted: [f64; 4]| {
            let pairs = found.iter().zip(wanted);
            assert!(
                pairs.into_iter().all(|(f, w)| (f - w).abs() < 1e-12),
                "{found:?}"
            );
        };
        near(&distribution.mean, [1.75, 1.85, 1.5, 1.7]);
        let root = 2f64.sqrt();
        let (kept, own) = (0.05 * root + 0.95, 0.85 * root + 0.15);
        near(&distribution.std, [kept, own, kept, own]);
    }

    #[test]
    fn published_constants() {
        let ac = Cem::vjepa2_ac();
        assert_eq!((ac.samples, ac.elites, ac.iterations), (400, 10, 10));
        assert_eq!((ac.space.horizon, ac.space.axes.len()), (2, 7));
        let lewm = Cem::lewm(10);
        assert_eq!((lewm.samples, lewm.elites, lewm.iterations), (300, 30, 30));
        assert_eq!((lewm.space.horizon, lewm.space.axes.len()), (5, 10));
        let eb = Cem::eb_jepa(2);
        assert_eq!((eb.samples, eb.elites, eb.iterations), (200, 20, 20));
        assert_eq!((eb.space.horizon, eb.space.max_norm), (90, Some(2.45)));
        assert_eq!(eb.space.axes, [Axis::free(1.5); 2]);
        for preset in [ac, lewm, eb] {
            assert_eq!(preset.check(), Ok(()));
        }
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let code = |change: fn(&mut Cem)| {
            let mut cem = Cem::lewm(2);
            change(&mut cem);
            cem.check().map_err(|e| e.code())
        };
        assert_eq!(code(|_| ()), Ok(()));
        assert_eq!(code(|cem| cem.elites = 301), Err("bad-config"));
        assert_eq!(code(|cem| cem.elites = 1), Err("bad-config"));
        assert_eq!(code(|cem| cem.samples = 0), Err("bad-config"));
        assert_eq!(code(|cem| cem.iterations = 0), Err("bad-config"));
        assert_eq!(code(|cem| cem.space.horizon = 0), Err("bad-config"));
        assert_eq!(code(|cem| cem.momentum[1] = 1.5), Err("bad-config"));
        assert_eq!(code(|cem| cem.momentum[0] = f64::NAN), Err("bad-config"));
        let own = |cem: &mut Cem| cem.space.axes[1].momentum = Some([0.0, -0.1]);
        assert_eq!(code(own), Err("bad-config"));
        let failing = |costs: Result<Vec<f32>>| {
            let cost = async |_: &Candidates| costs.clone();
            let mut random = Stream::new(0, "plan", 0);
            let plan = now(Cem::lewm(1).plan(None, &mut random, cost));
            plan.map_err(|e| e.code()).map(|_| ())
        };
        assert_eq!(failing(Ok(vec![0.0; 300])), Ok(()));
        assert_eq!(failing(Ok(vec![0.0; 299])), Err("bad-input"));
        assert_eq!(failing(Ok(vec![f32::NAN; 300])), Err("bad-input"));
        let lost = Err(Error::Internal("the device is lost".into()));
        assert_eq!(failing(lost), Err("internal"));

        let cem = Cem::lewm(1);
        let candidates = |count: usize, numbers: usize| Candidates {
            data: vec![0.0; numbers],
            count,
            horizon: 5,
            action: 1,
        };
        let updated = |mut distribution: Distribution, candidates: Candidates| {
            let costs = vec![0.0; candidates.count];
            let elites = cem.update(&mut distribution, &candidates, &costs);
            elites.map_err(|e| e.code()).map(|_| ())
        };
        let first = cem.first(None).unwrap();
        assert_eq!(updated(first.clone(), candidates(30, 150)), Ok(()));
        assert_eq!(
            updated(first.clone(), candidates(29, 145)),
            Err("bad-input")
        );
        assert_eq!(
            updated(first.clone(), candidates(30, 149)),
            Err("bad-input")
        );
        let short = Distribution {
            std: vec![1.0; 4],
            ..first
        };
        assert_eq!(updated(short, candidates(30, 150)), Err("bad-input"));
    }
}
