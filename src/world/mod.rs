//! Planning with a world model: which actions bring the predicted state to a goal. Pure search, without tensors: a planner proposes
//! sequences of actions and is told what each costs.
//!
//! - [`cem`]: the cross-entropy method, as V-JEPA 2-AC and LeWorldModel plan.
//! - [`mppi`]: model predictive path integral control.
//! - [`descent`]: along the gradient of the cost.
//! - [`options`]: any of them, as callers describe it.
//! - [`search`]: one that its caller drives.
//! - [`pose`]: what actions do to a state that is known in numbers.
//! - [`scale`]: actions in the units that a model was trained with.
//!
//! A planner is called anew for every state (receding horizon): the first actions of a plan are carried out, and the rest,
//! [`shifted`](Plan::shifted), is where the next search starts. Random numbers come from the caller's generator.

pub mod cem;
pub mod descent;
pub mod mppi;
pub mod options;
pub mod pose;
pub mod scale;
pub mod search;

pub use cem::{Cem, Distribution};
pub use descent::{Descent, Slopes};
pub use mppi::Mppi;
pub use options::{PlanOptions, Planner};
pub use pose::{moved, pulled_back};
pub use scale::ActionScale;
pub use search::Search;

use serde::Deserialize;

use crate::rng::Generator;
use crate::{Error, Result};

const MAX_SAMPLES: usize = 1 << 20;
const MAX_HORIZON: usize = 1 << 12;
const MAX_AXES: usize = 1 << 12;
const MAX_ITERATIONS: usize = 1 << 16;
/// Numbers of all candidates together: what 32-bit sizes hold of f32 values.
const MAX_NUMBERS: usize = 1 << 28;

/// What a planner may do with one number of an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// Standard deviation of the first samples, around 0 or the start.
    pub scale: f64,
    /// Samples are clipped to this absolute value.
    pub limit: Option<f64>,
    /// Steps at which the number is given, not searched.
    pub pin: Option<Pin>,
    /// Plans whose absolute value is below this are 0 there.
    pub dead_zone: f64,
    /// What mean and standard deviation keep of themselves in a round of [`Cem`], where that is not what its other axes keep.
    pub momentum: Option<[f64; 2]>,
}

/// Which predictions of a sequence count in its cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// The last one, as published.
    #[default]
    Last,
    /// All, added up: what arrives earlier costs less, and horizons may be longer than the way.
    Sum,
}

/// A value that an axis has from a step on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pin {
    /// The first step, from 0.
    pub from: usize,
    /// The value.
    pub value: f64,
}

impl Axis {
    /// Searched without bounds.
    pub const fn free(scale: f64) -> Self {
        Self {
            scale,
            limit: None,
            pin: None,
            dead_zone: 0.0,
            momentum: None,
        }
    }

    /// Searched within `±limit`.
    pub const fn limited(scale: f64, limit: f64) -> Self {
        Self {
            limit: Some(limit),
            ..Self::free(scale)
        }
    }

    /// Always `value`.
    pub const fn pinned(value: f64) -> Self {
        Self {
            pin: Some(Pin { from: 0, value }),
            ..Self::free(0.0)
        }
    }

    /// The given value at a step, where there is one.
    fn given(&self, step: usize) -> Option<f64> {
        let pin = self.pin.filter(|pin| pin.from <= step)?;
        Some(pin.value)
    }

    fn admitted(&self, step: usize, value: f64) -> f64 {
        match (self.given(step), self.limit) {
            (Some(given), _) => given,
            (None, Some(limit)) => value.clamp(-limit, limit),
            (None, None) => value,
        }
    }
}

/// The sequences among which a planner searches.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// Actions of a sequence.
    pub horizon: usize,
    /// The numbers of an action.
    pub axes: Vec<Axis>,
    /// Largest Euclidean norm of what is searched of an action: longer ones are shortened to it.
    pub max_norm: Option<f64>,
}

/// Sequences of actions whose costs are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    /// `[count, horizon, action]` row-major.
    pub data: Vec<f32>,
    /// Sequences.
    pub count: usize,
    /// Actions of each.
    pub horizon: usize,
    /// Numbers of an action.
    pub action: usize,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `[horizon, action]` row-major.
    pub actions: Vec<f64>,
    /// Numbers of an action.
    pub action: usize,
    /// The lowest cost of a candidate, in each round of the search.
    pub costs: Vec<f64>,
}

impl Candidates {
    /// The same sequences, at most `most` at once.
    pub fn chunks(&self, most: usize) -> impl Iterator<Item = Self> {
        let Self {
            horizon, action, ..
        } = *self;
        let numbers = (horizon * action).max(1);
        let parts = self.data.chunks(numbers * most.max(1));
        parts.map(move |part| Self {
            data: part.to_vec(),
            count: part.len() / numbers,
            horizon,
            action,
        })
    }

    /// # Errors
    /// [`Error::BadInput`] where the data are not sequences of actions of `size` numbers, or none.
    pub fn check(&self, size: usize) -> Result<()> {
        let &Self {
            ref data,
            count,
            horizon,
            action,
        } = self;
        let sizes = [count, horizon, action];
        let values = sizes.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        match action == size && count > 0 && horizon > 0 && values == Some(data.len()) {
            true => Ok(()),
            false => Err(Error::BadInput(format!(
                "{} numbers are not {count} sequences of {horizon} action blocks of {action}, which the model takes of {size}",
                data.len()
            ))),
        }
    }
}

impl Plan {
    /// Where to start the next search after the first `steps` actions were carried out: the rest, and then zeros.
    pub fn shifted(&self, steps: usize) -> Vec<f64> {
        let done = steps.saturating_mul(self.action).min(self.actions.len());
        let mut rest = self.actions[done..].to_vec();
        rest.resize(self.actions.len(), 0.0);
        rest
    }
}

impl Space {
    /// Without a bound on norms.
    pub const fn new(horizon: usize, axes: Vec<Axis>) -> Self {
        Self {
            horizon,
            axes,
            max_norm: None,
        }
    }

    /// # Errors
    /// [`Error::BadConfig`] for an empty or absurd size, or a constant out of its range.
    pub fn check(&self) -> Result<()> {
        within("the horizon", self.horizon, MAX_HORIZON)?;
        within("the size of an action", self.axes.len(), MAX_AXES)?;
        let positive = |v: f64| v.is_finite() && v >= 0.0;
        let fine = |axis: &Axis| {
            positive(axis.scale)
                && positive(axis.dead_zone)
                && axis.limit.is_none_or(positive)
                && axis.pin.is_none_or(|pin| pin.value.is_finite())
        };
        if let Some(norm) = self.max_norm
            && !(norm.is_finite() && norm > 0.0)
        {
            return Err(bad(format!(
                "the largest norm of an action must be above 0, found {norm}"
            )));
        }
        match self.axes.iter().position(|axis| !fine(axis)) {
            None => Ok(()),
            Some(axis) => Err(bad(format!(
                "axis {axis} of the actions has a scale, limit or dead zone below 0, or a number that is not finite"
            ))),
        }
    }

    /// Numbers of a sequence.
    fn numbers(&self) -> usize {
        self.horizon * self.axes.len()
    }

    /// The search's first centre: `start`, or zeros, with what is pinned.
    fn start(&self, start: Option<&[f64]>) -> Result<Vec<f64>> {
        let zeros = vec![0.0; self.numbers()];
        let start = start.unwrap_or(&zeros);
        if start.len() != self.numbers() || start.iter().any(|v| !v.is_finite()) {
            return Err(Error::BadInput(format!(
                "the search starts from {} finite numbers for {} actions of {}, not from {}",
                self.numbers(),
                self.horizon,
                self.axes.len(),
                start.len()
            )));
        }
        Ok(self.admitted(start))
    }

    /// A sequence as the axes and the norm allow it.
    fn admitted(&self, sequence: &[f64]) -> Vec<f64> {
        let mut admitted = self.each(|step, axis, at| self.axes[axis].admitted(step, sequence[at]));
        let Some(most) = self.max_norm else {
            return admitted;
        };
        let actions = admitted.chunks_exact_mut(self.axes.len());
        for (step, action) in actions.enumerate() {
            let searched = || self.axes.iter().map(|axis| axis.given(step).is_none());
            let squares = action.iter().zip(searched()).filter(|(_, free)| *free);
            let norm = squares.map(|(v, _)| v * v).sum::<f64>().sqrt();
            if norm > most {
                let numbers = action.iter_mut().zip(searched());
                let long = numbers.filter(|(_, free)| *free);
                long.for_each(|(v, _)| *v *= most / norm);
            }
        }
        admitted
    }

    /// The numbers of a sequence by step, axis and place.
    fn each(&self, number: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
        let width = self.axes.len();
        (0..self.numbers())
            .map(|at| number(at / width, at % width, at))
            .collect()
    }

    /// `samples` sequences around `mean`, of standard deviation `std`. With `centre` the first of them is the mean itself.
    fn sampled(
        &self,
        samples: usize,
        [mean, std]: [&[f64]; 2],
        centre: bool,
        random: &mut impl Generator,
    ) -> Candidates {
        let numbers = self.numbers();
        let mut data = vec![0.0; samples * numbers];
        random.fill_normal(&mut data);
        for (sample, sequence) in data.chunks_exact_mut(numbers).enumerate() {
            let moved = self.each(|_, _, at| {
                let away = match centre && sample == 0 {
                    true => 0.0,
                    false => f64::from(sequence[at]) * std[at],
                };
                mean[at] + away
            });
            let narrow = sequence.iter_mut().zip(self.admitted(&moved));
            narrow.for_each(|(value, moved)| *value = moved as f32);
        }
        Candidates {
            data,
            count: samples,
            horizon: self.horizon,
            action: self.axes.len(),
        }
    }

    /// The search's last centre as a plan.
    fn plan(&self, mean: &[f64], costs: Vec<f64>) -> Plan {
        let actions = self.each(|step, axis, at| {
            let axis = &self.axes[axis];
            match axis.given(step) {
                None if mean[at].abs() < axis.dead_zone => 0.0,
                _ => mean[at],
            }
        });
        Plan {
            actions,
            action: self.axes.len(),
            costs,
        }
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::BadConfig(why.into())
}

fn within(what: &str, value: usize, max: usize) -> Result<()> {
    match (1..=max).contains(&value) {
        true => Ok(()),
        false => Err(bad(format!(
            "{what} of a planner must be from 1 to {max}, found {value}"
        ))),
    }
}

/// Checks the constants that all sampling planners have.
fn check_search(space: &Space, samples: usize, iterations: usize) -> Result<()> {
    space.check()?;
    within("the number of samples", samples, MAX_SAMPLES)?;
    within("the number of iterations", iterations, MAX_ITERATIONS)?;
    within(
        "the number of all candidates' numbers",
        samples.saturating_mul(space.numbers()),
        MAX_NUMBERS,
    )
}

/// The lowest of the costs of `count` candidates.
///
/// # Errors
/// [`Error::BadInput`] for another number of costs, for NaN, and where none is finite.
fn lowest(costs: &[f32], count: usize) -> Result<f64> {
    if costs.len() != count {
        return Err(Error::BadInput(format!(
            "the cost function gave {} costs for {count} candidates; give one for each",
            costs.len()
        )));
    }
    if let Some(at) = costs
        .iter()
        .position(|&c| c.is_nan() || c == f32::NEG_INFINITY)
    {
        return Err(Error::BadInput(format!(
            "the cost of candidate {at} is {}; a cost is a number, or infinite for what is forbidden",
            costs[at]
        )));
    }
    let lowest = costs.iter().copied().fold(f32::INFINITY, f32::min);
    match lowest.is_finite() {
        true => Ok(f64::from(lowest)),
        false => Err(Error::BadInput(
            "the cost of every candidate is infinite".into(),
        )),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::rng::Stream;

    /// The value of a future that never waits.
    pub fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => unreachable!("the cost functions of these tests do not wait"),
        }
    }

    /// `Σ (a − target)²` of each candidate.
    pub fn squares_from(target: &[f64]) -> impl Fn(&Candidates) -> Vec<f32> {
        move |candidates| {
            let sequences = candidates.data.chunks_exact(target.len());
            let cost = |sequence: &[f32]| {
                let pairs = sequence.iter().zip(target);
                pairs.map(|(&a, t)| (f64::from(a) - t).powi(2)).sum::<f64>() as f32
            };
            sequences.map(cost).collect()
        }
    }

    #[test]
    fn samples_keep_to_their_axes() {
        let gripper = Axis {
            pin: Some(Pin {
                from: 1,
                value: 1.0,
            }),
            ..Axis::limited(1.0, 0.75)
        };
        let axes = vec![
            Axis::limited(0.05, 0.05),
            Axis::pinned(0.0),
            gripper,
            Axis::free(2.0),
        ];
        let space = Space::new(3, axes);
        let mean = space.start(None).unwrap();
        assert_eq!(mean, [0., 0., 0., 0., 0., 0., 1., 0., 0., 0., 1., 0.]);
        let std = space.each(|_, axis, _| space.axes[axis].scale);
        let random = &mut Stream::new(1, "plan", 0);
        let candidates = space.sampled(4_000, [&mean, &std], true, random);
        let numbers = |step: usize, axis: usize| {
            let sequences = candidates.data.chunks_exact(12).skip(1);
            sequences
                .map(|s| f64::from(s[step * 4 + axis]))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            candidates.data[..12],
            [0., 0., 0., 0., 0., 0., 1., 0., 0., 0., 1., 0.]
        );
        // Of a normal 15.9 % lie above its deviation: 5 standard deviations of the count are 116.
        let clipped = numbers(0, 0).iter().filter(|&&v| v >= 0.05 - 1e-9).count();
        assert!(clipped.abs_diff(635) < 116, "{clipped}");
        assert!(numbers(2, 0).iter().all(|v| v.abs() <= 0.05 + 1e-9));
        assert!(numbers(1, 1).iter().all(|&v| v == 0.0));
        assert!(numbers(0, 2).iter().all(|v| v.abs() <= 0.75));
        assert!(numbers(1, 2).iter().all(|&v| v == 1.0));
        let free = numbers(2, 3);
        let variance = free.iter().map(|v| v * v).sum::<f64>() / free.len() as f64;
        // Five standard deviations of a variance: 5 · 4 · √(2/n).
        assert!((variance - 4.0).abs() < 0.45, "{variance}");
    }

    #[test]
    fn long_actions_are_shortened_and_what_is_pinned_stays() {
        let axes = vec![Axis::free(1.0), Axis::pinned(9.0), Axis::limited(1.0, 4.0)];
        let space = Space {
            max_norm: Some(2.5),
            ..Space::new(2, axes)
        };
        // 3 and 4, of norm 5, are halved; 1.5 and 2 have the norm 2.5.
        let admitted = space.admitted(&[3.0, 0.0, 7.0, 1.5, 0.0, 2.0]);
        assert_eq!(admitted, [1.5, 9.0, 2.0, 1.5, 9.0, 2.0]);
        let random = &mut Stream::new(1, "plan", 0);
        let wide = [&[0.0; 6][..], &[3.0; 6]];
        let candidates = space.sampled(200, wide, false, random);
        let norms = candidates.data.chunks_exact(3).map(|a| a[0].hypot(a[2]));
        assert!(norms.clone().all(|norm| norm <= 2.5 + 1e-6));
        // Of deviation 3 each, all but 1 − exp(−(2.5/3)²/2) = 29 % are longer: five standard deviations of the count of 400 are 46.
        let shortened = norms.filter(|norm| *norm > 2.5 - 1e-5).count();
        assert!(shortened.abs_diff(283) < 46, "{shortened}");
    }

    #[test]
    fn the_rest_of_a_plan_starts_the_next() {
        let plan = Plan {
            actions: vec![1., 2., 3., 4., 5., 6.],
            action: 2,
            costs: Vec::new(),
        };
        assert_eq!(plan.shifted(1), [3., 4., 5., 6., 0., 0.]);
        assert_eq!(plan.shifted(0), plan.actions);
        assert_eq!(plan.shifted(9), [0.0; 6]);
    }

    #[test]
    fn what_is_too_small_is_left_out_of_a_plan() {
        let axis = Axis {
            dead_zone: 0.25,
            ..Axis::free(1.0)
        };
        let space = Space::new(2, vec![axis, Axis::free(1.0)]);
        let plan = space.plan(&[-0.2, 0.2, 0.25, -0.1], Vec::new());
        assert_eq!(plan.actions, [0.0, 0.2, 0.25, -0.1]);
    }

    #[test]
    fn bad_spaces_and_costs_are_refused() {
        let space = |horizon, axis: Axis| Space::new(horizon, vec![axis]);
        for wrong in [
            space(0, Axis::free(1.0)),
            space(usize::MAX, Axis::free(1.0)),
            space(1, Axis::free(-1.0)),
            space(1, Axis::free(f64::NAN)),
            space(1, Axis::limited(1.0, -1.0)),
            space(1, Axis::pinned(f64::INFINITY)),
            Space::new(1, Vec::new()),
            Space {
                max_norm: Some(0.0),
                ..space(1, Axis::free(1.0))
            },
            Space {
                max_norm: Some(f64::NAN),
                ..space(1, Axis::free(1.0))
            },
        ] {
            assert_eq!(wrong.check().unwrap_err().code(), "bad-config", "{wrong:?}");
        }
        let fine = space(2, Axis::free(1.0));
        assert_eq!(check_search(&fine, 0, 1).unwrap_err().code(), "bad-config");
        assert_eq!(check_search(&fine, 1, 0).unwrap_err().code(), "bad-config");
        for start in [&[0.0][..], &[0.0, f64::NAN]] {
            assert_eq!(fine.start(Some(start)).unwrap_err().code(), "bad-input");
        }
        for costs in [
            &[1.0][..],
            &[1.0, f32::NAN],
            &[f32::NEG_INFINITY, 1.0],
            &[f32::INFINITY; 2],
        ] {
            assert_eq!(lowest(costs, 2).unwrap_err().code(), "bad-input");
        }
        assert_eq!(lowest(&[f32::INFINITY, 2.0], 2), Ok(2.0));
    }
}
