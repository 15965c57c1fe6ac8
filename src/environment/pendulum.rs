//! A pendulum that is to be swung up and kept there: the equations, constants and reward of Gymnasium's Pendulum-v1. A single picture does
//! not show how fast it turns.

use super::canvas::{Canvas, Colour};
use super::{Environment, Outcome, admitted};
use crate::Result;
use crate::rng::{Generator, Stream};

/// Seconds of a step.
pub const DT: f64 = 0.05;
/// Gravity, m/s²; mass and length of the rod are 1 kg and 1 m.
pub const GRAVITY: f64 = 10.0;
/// The torque of an action of 1, N·m: too little to lift the rod at once.
pub const TORQUE: f64 = 2.0;
/// Fastest turn, rad/s.
pub const FASTEST: f64 = 8.0;
/// Steps of an episode.
const STEPS: usize = 200;
/// Width and height of what is seen, m.
const EXTENT: f64 = 2.6;
/// Half the width of the rod as drawn, m.
const HALF_WIDTH: f64 = 0.1;

const WHITE: Colour = [1.0; 3];
const RED: Colour = [0.8, 0.3, 0.3];
const BLACK: Colour = [0.0; 3];

/// The environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Pendulum {
    /// From upright, rad, counter-clockwise, from −π to π.
    angle: f64,
    /// rad/s.
    speed: f64,
    steps: usize,
}

impl Default for Pendulum {
    /// At the start of the episode with seed 0.
    fn default() -> Self {
        let mut pendulum = Self {
            angle: 0.0,
            speed: 0.0,
            steps: 0,
        };
        pendulum.reset(0);
        pendulum
    }
}

/// The same angle from −π to π.
fn wrapped(angle: f64) -> f64 {
    (angle + std::f64::consts::PI).rem_euclid(std::f64::consts::TAU) - std::f64::consts::PI
}

fn picture(angle: f64, side: usize) -> Result<Vec<u8>> {
    let middle = EXTENT / 2.0;
    let mut canvas = Canvas::new(side, EXTENT, WHITE)?;
    let end = [middle - libm::sin(angle), middle - libm::cos(angle)];
    canvas.line(RED, [middle, middle], end, HALF_WIDTH);
    canvas.line(BLACK, [middle, middle], [middle, middle], HALF_WIDTH / 2.0);
    Ok(canvas.bytes())
}

impl Pendulum {
    /// Begins an episode at an angle from upright (rad) and a speed (rad/s).
    pub fn place(&mut self, angle: f64, speed: f64) {
        (self.angle, self.speed, self.steps) = (wrapped(angle), speed, 0);
    }
}

impl Environment for Pendulum {
    fn action_size(&self) -> usize {
        1
    }

    /// At any angle, at up to 1 rad/s in either direction.
    fn reset(&mut self, seed: u64) {
        let random = &mut Stream::new(seed, "pendulum", 0);
        let mut uniform = || 2.0 * random.uniform_f64() - 1.0;
        let angle = std::f64::consts::PI * uniform();
        self.place(angle, uniform());
    }

    /// The reward is what Gymnasium's is, from −16.3 to 0: `−(angle² + 0.1 speed² + 0.001 torque²)` before the step. It never terminates.
    fn step(&mut self, action: &[f64]) -> Result<Outcome> {
        let torque = TORQUE * admitted(action, self.action_size())?[0];
        let reward = -(self.angle.powi(2) + 0.1 * self.speed.powi(2) + 0.001 * torque.powi(2));
        // Of a rod that turns about its end: 3/2 g sin θ + 3 u.
        let acceleration = 1.5 * GRAVITY * libm::sin(self.angle) + 3.0 * torque;
        self.speed = (self.speed + acceleration * DT).clamp(-FASTEST, FASTEST);
        self.angle = wrapped(self.angle + self.speed * DT);
        self.steps += 1;
        Ok(Outcome {
            reward,
            terminated: false,
            truncated: self.steps >= STEPS,
        })
    }

    fn observe(&self, side: usize) -> Result<Vec<u8>> {
        picture(self.angle, side)
    }

    /// Upright.
    fn observe_goal(&self, side: usize) -> Result<Vec<u8>> {
        picture(0.0, side)
    }

    /// `[cos, sin, speed]`, as Gymnasium's observation.
    fn state(&self) -> Vec<f64> {
        vec![libm::cos(self.angle), libm::sin(self.angle), self.speed]
    }

    /// Gives it the energy that it has upright, and keeps it there.
    fn expert(&self) -> Vec<f64> {
        /// Nearer than this to upright and slower, it is held, rad and rad/s.
        const NEAR: [f64; 2] = [0.3, 2.0];
        let torque = if self.angle.abs() < NEAR[0] && self.speed.abs() < NEAR[1] {
            -10.0 * self.angle - 2.0 * self.speed
        } else {
            // Per moment of inertia: speed²/2 + 3/2 g (cos θ − 1) is 0 at rest upright.
            let energy = self.speed.powi(2) / 2.0 + 1.5 * GRAVITY * (libm::cos(self.angle) - 1.0);
            let along = if self.speed < 0.0 { -1.0 } else { 1.0 };
            -energy * along
        };
        vec![(torque / TORQUE).clamp(-1.0, 1.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_that_of_gymnasium() {
        let mut pendulum = Pendulum::default();
        pendulum.place(std::f64::consts::FRAC_PI_2, 1.0);
        let outcome = pendulum.step(&[0.5]).unwrap();
        // Torque 1: speed 1 + (15 + 3) · 0.05 = 1.9, angle π/2 + 0.095; cost π²/4 + 0.1 + 0.001.
        assert!((pendulum.speed - 1.9).abs() < 1e-12);
        assert!((pendulum.angle - std::f64::consts::FRAC_PI_2 - 0.095).abs() < 1e-12);
        let cost = std::f64::consts::PI.powi(2) / 4.0 + 0.101;
        assert!((outcome.reward + cost).abs() < 1e-12);
        assert!(!outcome.terminated && !outcome.truncated);
        // The torque and the speed have limits.
        pendulum.place(std::f64::consts::FRAC_PI_2, 7.9);
        pendulum.step(&[5.0]).unwrap();
        assert_eq!(pendulum.speed, FASTEST);
        pendulum.place(3.1, 2.0);
        pendulum.step(&[0.0]).unwrap();
        assert!(pendulum.angle < -3.0, "{}", pendulum.angle);
    }

    #[test]
    fn it_swings_at_the_period_of_a_rod() {
        // Small swings about the lowest point: ω² = 3 g / (2 l) = 15.
        let mut pendulum = Pendulum::default();
        pendulum.place(std::f64::consts::PI - 0.01, 0.0);
        let mut passes = Vec::new();
        for step in 1..=190 {
            let before = pendulum.speed;
            pendulum.step(&[0.0]).unwrap();
            if before * pendulum.speed < 0.0 {
                passes.push(f64::from(step));
            }
        }
        let halves = (passes.len() - 1) as f64;
        let period = 2.0 * DT * (passes[passes.len() - 1] - passes[0]) / halves;
        // Semi-implicit steps: 2 sin(ω' dt / 2) = ω dt. A pass is known to a step at either end.
        let omega = 2.0 / DT * (15.0_f64.sqrt() * DT / 2.0).asin();
        let expected = std::f64::consts::TAU / omega;
        assert!(
            (period - expected).abs() < 4.0 * DT / halves,
            "{period} {expected}"
        );
    }

    #[test]
    fn experts_swing_it_up() {
        for seed in 0..40 {
            let mut pendulum = Pendulum::default();
            pendulum.reset(seed);
            let mut outcome = pendulum.step(&pendulum.expert()).unwrap();
            while !outcome.truncated {
                outcome = pendulum.step(&pendulum.expert()).unwrap();
            }
            assert!(outcome.reward > -0.05, "{seed}: {}", outcome.reward);
        }
    }

    #[test]
    fn the_picture_is_the_angle() {
        let mut pendulum = Pendulum::default();
        pendulum.place(std::f64::consts::FRAC_PI_2, 0.0);
        let pixels = pendulum.observe(65).unwrap();
        let red = |x: usize, y: usize| pixels[3 * (y * 65 + x)..][..3] == [204, 77, 77];
        // 25 pixels a metre: from the middle to the left, a fifth of a metre thick.
        assert!(red(10, 32) && red(25, 33) && !red(3, 32) && !red(38, 32) && !red(32, 20));
        assert_ne!(pendulum.observe_goal(65).unwrap(), pixels);
        pendulum.place(0.0, 5.0);
        assert_eq!(
            pendulum.observe_goal(65).unwrap(),
            pendulum.observe(65).unwrap()
        );
    }
}
