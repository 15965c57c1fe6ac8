//! What is done without a model.

use std::str::FromStr;

use crate::rng::{Generator, Stream};
use crate::{Error, Result};

/// How an environment is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Each action is drawn anew, every one as likely. Its steps nearly cancel each other: it stays where it began.
    Uniform,
    /// An action is kept for 1 to so many steps, each number as likely, and then drawn anew: it gets about.
    Held(usize),
}

impl FromStr for Policy {
    type Err = Error;

    /// `"uniform"`, or `"held-8"`.
    fn from_str(name: &str) -> Result<Self> {
        let longest = |text: &str| text.parse().ok().filter(|&n: &usize| n > 0);
        match name.strip_prefix("held-").map(longest) {
            None if name == "uniform" => Ok(Self::Uniform),
            Some(Some(longest)) => Ok(Self::Held(longest)),
            _ => Err(Error::BadInput(format!(
                "there is no policy {name:?}: use \"uniform\", or \"held-8\" for actions that are kept for 1 to 8 steps"
            ))),
        }
    }
}

/// A policy at work.
#[derive(Clone, Debug)]
pub struct Explorer {
    policy: Policy,
    random: Stream,
    action: Vec<f64>,
    left: usize,
}

impl Explorer {
    /// With the actions that `seed` decides in episode number `episode`, of `size` numbers each.
    pub fn new(policy: Policy, size: usize, seed: u64, episode: u64) -> Self {
        Self {
            policy,
            random: Stream::new(seed, "exploration", episode),
            action: vec![0.0; size],
            left: 0,
        }
    }

    /// The next action, of numbers from −1 to 1.
    pub fn act(&mut self) -> &[f64] {
        if self.left == 0 {
            let random = &mut self.random;
            self.action.fill_with(|| 2.0 * random.uniform_f64() - 1.0);
            self.left = match self.policy {
                Policy::Uniform => 1,
                Policy::Held(longest) => 1 + random.below(longest.max(1)),
            };
        }
        self.left -= 1;
        &self.action
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acted(policy: Policy, seed: u64, episode: u64) -> Vec<Vec<f64>> {
        let mut explorer = Explorer::new(policy, 2, seed, episode);
        (0..9_000).map(|_| explorer.act().to_vec()).collect()
    }

    #[test]
    fn actions_are_uniform_and_kept_as_long_as_the_policy_says() {
        for (policy, kept) in [
            (Policy::Uniform, 1.0),
            (Policy::Held(1), 1.0),
            (Policy::Held(5), 3.0),
        ] {
            let actions = acted(policy, 3, 0);
            let mut drawn = actions.clone();
            drawn.dedup();
            let runs = actions.len() as f64 / drawn.len() as f64;
            // Lengths of 1 to 5 have a deviation of √2: of the mean of 3,000 of them five are 0.13.
            assert!((runs - kept).abs() < 0.13, "{policy:?}: {runs}");
            let all: Vec<f64> = drawn.concat();
            assert!(all.iter().all(|v| (-1.0..1.0).contains(v)));
            let squares = all.iter().map(|v| v * v).sum::<f64>() / all.len() as f64;
            // Of uniform numbers: 1/3, with a deviation of √(4/45) = 0.3.
            assert!((squares - 1.0 / 3.0).abs() < 5.0 * 0.3 / (all.len() as f64).sqrt());
        }
    }

    #[test]
    fn seed_and_episode_decide() {
        let first = acted(Policy::Held(4), 1, 2);
        assert_eq!(first, acted(Policy::Held(4), 1, 2));
        assert_ne!(first, acted(Policy::Held(4), 2, 2));
        assert_ne!(first, acted(Policy::Held(4), 1, 3));
    }

    #[test]
    fn policies_have_names() {
        assert_eq!("uniform".parse(), Ok(Policy::Uniform));
        assert_eq!("held-12".parse(), Ok(Policy::Held(12)));
        for wrong in ["", "held", "held-", "held-0", "held--3", "expert"] {
            assert_eq!(wrong.parse::<Policy>().unwrap_err().code(), "bad-input");
        }
    }
}
