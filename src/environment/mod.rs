//! Places to act in, seen as pictures, and recordings of what was done there: what world models learn from and are tried in. No tensors.
//!
//! - [`two_rooms`]: a dot, a wall, a door.
//! - [`maze`]: a dot, and walls that each episode has anew.
//! - [`pendulum`]: to be swung up.
//! - `push`: a disc that pushes a block (feature `physics`).
//! - [`policy`]: what is done without a model: to explore, and to compare with.
//! - [`replay`]: recorded episodes, as a file and as windows to train on.
//! - [`canvas`]: what pictures are drawn on.
//!
//! An [`Environment`] has Gymnasium's interface, but for pictures, which are drawn when they are asked for: many steps need none.

pub mod canvas;
pub mod maze;
pub mod pendulum;
pub mod policy;
#[cfg(feature = "physics")]
pub mod push;
pub mod replay;
pub mod two_rooms;

pub use maze::Maze;
pub use pendulum::Pendulum;
pub use policy::{Explorer, Policy};
#[cfg(feature = "physics")]
pub use push::Push;
pub use replay::{Episode, Replay, Windows, collect};
pub use two_rooms::TwoRooms;

use crate::{Error, Result};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// What was gained: 1 where the goal is reached and 0 elsewhere, unless the environment says otherwise.
    pub reward: f64,
    /// Whether the goal is reached. What acts decides whether to [`reset`](Environment::reset) then; a step after it is one like any.
    pub terminated: bool,
    /// Whether the time of the episode is over.
    pub truncated: bool,
}

/// A place to act in.
pub trait Environment {
    /// Numbers of an action, each from −1 to 1.
    fn action_size(&self) -> usize;

    /// Begins an episode, whose start and goal `seed` decides.
    fn reset(&mut self, seed: u64);

    /// Carries out an action. Numbers beyond −1 and 1 are clipped.
    ///
    /// # Errors
    /// [`Error::BadInput`] for an action of another size, and for numbers that are not finite.
    fn step(&mut self, action: &[f64]) -> Result<Outcome>;

    /// What is seen: `[side, side, 3]`, rows from the top.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a side of 0, or beyond [`canvas::MAX_SIDE`].
    fn observe(&self, side: usize) -> Result<Vec<u8>>;

    /// What would be seen at the goal of this episode.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    fn observe_goal(&self, side: usize) -> Result<Vec<u8>>;

    /// What a picture shows, as numbers: for measurements, never for learning.
    fn state(&self) -> Vec<f64>;

    /// The action of who knows the way to the goal.
    fn expert(&self) -> Vec<f64>;
}

/// An action as an environment carries it out.
fn admitted(action: &[f64], size: usize) -> Result<Vec<f64>> {
    if action.len() != size || action.iter().any(|v| !v.is_finite()) {
        return Err(Error::BadInput(format!(
            "an action here is {size} finite numbers from −1 to 1, not {action:?}"
        )));
    }
    Ok(action.iter().map(|v| v.clamp(-1.0, 1.0)).collect())
}

/// An environment in which each action is carried out several times: one decision for so many steps.
#[derive(Clone, Debug)]
pub struct Repeated<E> {
    inner: E,
    times: usize,
}

impl<E: Environment> Repeated<E> {
    /// # Errors
    /// [`Error::BadInput`] for 0 times.
    pub fn new(inner: E, times: usize) -> Result<Self> {
        match times {
            0 => Err(Error::BadInput(
                "an action is carried out once at least, not 0 times".into(),
            )),
            _ => Ok(Self { inner, times }),
        }
    }

    /// The environment itself.
    pub fn inner(&self) -> &E {
        &self.inner
    }

    /// The environment itself, to be changed.
    pub fn inner_mut(&mut self) -> &mut E {
        &mut self.inner
    }

    /// How often each action is carried out.
    pub fn times(&self) -> usize {
        self.times
    }
}

impl<E: Environment> Environment for Repeated<E> {
    fn action_size(&self) -> usize {
        self.inner.action_size()
    }

    fn reset(&mut self, seed: u64) {
        self.inner.reset(seed);
    }

    /// Rewards are added; nothing more is done once the episode has ended.
    fn step(&mut self, action: &[f64]) -> Result<Outcome> {
        let mut all = self.inner.step(action)?;
        for _ in 1..self.times {
            if all.terminated || all.truncated {
                break;
            }
            let one = self.inner.step(action)?;
            all = Outcome {
                reward: all.reward + one.reward,
                ..one
            };
        }
        Ok(all)
    }

    fn observe(&self, side: usize) -> Result<Vec<u8>> {
        self.inner.observe(side)
    }

    fn observe_goal(&self, side: usize) -> Result<Vec<u8>> {
        self.inner.observe_goal(side)
    }

    fn state(&self) -> Vec<f64> {
        self.inner.state()
    }

    fn expert(&self) -> Vec<f64> {
        self.inner.expert()
    }
}
