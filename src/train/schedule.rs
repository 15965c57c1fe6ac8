//! Learning rate, weight decay and momentum of the target encoder over a training run.
//!
//! Published schedules are stepped before they are used: the first optimizer step has the values of step 1. Their ends are
//! stretched by `ipe_scale`, so that a run with one above 1 is over before the final values are reached.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The schedules of a run. What is absent has the values of I-JEPA's released configurations, which warm up in 40 of 300
/// epochs; what is constant has final values that are equal to the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Schedule {
    /// Optimizer steps of the run: 1000. I-JEPA's runs on ImageNet-1k have 187,500.
    pub steps: u64,
    /// Learning rate after the warm-up: 1e-3.
    pub lr: f64,
    /// Learning rate that the warm-up starts from: 2e-4.
    pub start_lr: f64,
    /// Learning rate at the end of the cosine: 1e-6.
    pub final_lr: f64,
    /// Steps of the warm-up; where it is absent, 40/300 of all.
    pub warmup_steps: Option<u64>,
    /// Steps of a straight way down at the end, before which the learning rate is constant; where it is absent, it falls in
    /// half a cosine from the warm-up on.
    pub anneal_steps: Option<u64>,
    /// Weight decay at the start: 0.04.
    pub weight_decay: f64,
    /// Weight decay at the end of its cosine: 0.4.
    pub final_weight_decay: f64,
    /// Momentum of the target encoder at the first update: 0.996.
    pub ema: f64,
    /// Momentum at the end: 1.
    pub final_ema: f64,
    /// How much longer than the run its schedules are: 1. V-JEPA: 1.25.
    pub ipe_scale: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            steps: 1000,
            lr: 1e-3,
            start_lr: 2e-4,
            final_lr: 1e-6,
            warmup_steps: None,
            anneal_steps: None,
            weight_decay: 0.04,
            final_weight_decay: 0.4,
            ema: 0.996,
            final_ema: 1.0,
            ipe_scale: 1.0,
        }
    }
}

impl Schedule {
    /// V-JEPA 1's: I-JEPA's, but up to a learning rate of 6.25e-4, with a momentum from 0.998, and stretched to 1.25 times the run.
    pub fn vjepa(steps: u64) -> Self {
        Self {
            steps,
            lr: 6.25e-4,
            ema: 0.998,
            ipe_scale: 1.25,
            ..Self::default()
        }
    }

    /// V-JEPA 2's before its cooldown: from 1e-4 up to 5.25e-4 in 40 of 800 epochs (those of ViT-g), and constant; a constant weight decay
    /// of 0.04 and a constant momentum of 0.99925. Its `ipe_scale` of 1.25 would stretch nothing, and is 1 here, so that a run reaches the
    /// final values that are given.
    pub fn vjepa2(steps: u64) -> Self {
        Self {
            steps,
            lr: 5.25e-4,
            start_lr: 1e-4,
            final_lr: 5.25e-4,
            warmup_steps: Some(steps * 40 / 800),
            weight_decay: 0.04,
            final_weight_decay: 0.04,
            ema: 0.99925,
            final_ema: 0.99925,
            ..Self::default()
        }
    }

    /// V-JEPA 2.1's: as V-JEPA 2's, but up to 6e-4 in 40 of 1000 epochs.
    pub fn vjepa21(steps: u64) -> Self {
        Self {
            lr: 6e-4,
            final_lr: 6e-4,
            warmup_steps: Some(steps * 40 / 1000),
            ..Self::vjepa2(steps)
        }
    }

    /// LeWorldModel's: 5e-5 after a warm-up in a hundredth of the steps, and down to 0 in half a cosine; a constant weight decay of 1e-3;
    /// no target encoder.
    pub fn lewm(steps: u64) -> Self {
        Self {
            steps,
            lr: 5e-5,
            start_lr: 0.0,
            final_lr: 0.0,
            warmup_steps: Some(steps / 100),
            weight_decay: 1e-3,
            final_weight_decay: 1e-3,
            ..Self::default()
        }
    }

    /// V-JEPA 2-AC's: from 7.5e-5 up to 4.25e-4 in 15 of 315 epochs, constant, and down to 0 in the last 15; a constant weight decay of
    /// 0.04; no target encoder.
    pub fn vjepa2_ac(steps: u64) -> Self {
        Self {
            steps,
            lr: 4.25e-4,
            start_lr: 7.5e-5,
            final_lr: 0.0,
            warmup_steps: Some(steps * 15 / 315),
            anneal_steps: Some(steps * 15 / 315),
            weight_decay: 0.04,
            final_weight_decay: 0.04,
            ..Self::default()
        }
    }

    /// # Errors
    /// [`Error::BadConfig`] for numbers out of range.
    pub fn check(&self) -> Result<()> {
        let bad = |why: &str| Err(Error::BadConfig(format!("the schedule {why}")));
        if !(1..=u64::from(u32::MAX)).contains(&self.steps) {
            return bad("has no steps or more than 2³² − 1: change steps");
        }
        let rates = [
            ("lr", self.lr),
            ("startLr", self.start_lr),
            ("finalLr", self.final_lr),
            ("weightDecay", self.weight_decay),
            ("finalWeightDecay", self.final_weight_decay),
        ];
        for (name, rate) in rates {
            if !(rate.is_finite() && rate >= 0.0) {
                return bad(&format!("has a {name} of {rate}: it must be 0 or more"));
            }
        }
        for (name, momentum) in [("ema", self.ema), ("finalEma", self.final_ema)] {
            if !(0.0..=1.0).contains(&momentum) {
                return bad(&format!(
                    "has an {name} of {momentum}: it must be from 0 to 1"
                ));
            }
        }
        if !(1.0..=100.0).contains(&self.ipe_scale) {
            return bad("has an ipeScale that is not from 1 to 100");
        }
        if self.warmup() >= self.last() {
            return bad("warms up until its end: lower warmupSteps");
        }
        if self
            .anneal_steps
            .is_some_and(|anneal| anneal > self.last() - self.warmup())
        {
            return bad("has no room for its annealSteps after the warm-up: lower one of them");
        }
        Ok(())
    }

    /// Learning rate of an optimizer step, from 1.
    pub fn lr(&self, step: u64) -> f64 {
        let rates = [self.start_lr, self.lr, self.final_lr];
        match self.anneal_steps {
            None => warmup_cosine(step, rates, self.warmup(), self.last()),
            Some(anneal) => warmup_stable_decay(step, rates, self.warmup(), anneal, self.last()),
        }
    }

    /// Weight decay of an optimizer step, from 1.
    pub fn weight_decay(&self, step: u64) -> f64 {
        cosine(
            step,
            [self.weight_decay, self.final_weight_decay],
            self.last(),
        )
    }

    /// Momentum of an update of the target encoder, from 0.
    pub fn ema(&self, update: u64) -> f64 {
        let length = self.steps as f64 * self.ipe_scale;
        linear_ema(update, [self.ema, self.final_ema], length)
    }

    /// The step at which the final values are reached.
    fn last(&self) -> u64 {
        (self.steps as f64 * self.ipe_scale) as u64
    }

    /// Steps of the warm-up.
    pub fn warmup(&self) -> u64 {
        self.warmup_steps.unwrap_or(self.steps * 40 / 300)
    }
}

/// Optimizer steps of an epoch: the last, incomplete batch is left out, as published.
pub fn steps_per_epoch(images: u64, batch: u64) -> u64 {
    images.checked_div(batch).unwrap_or(0)
}

/// From `start` straight to `reference` at step `warmup`, then in half a cosine to `end` at step `last` and after it. The
/// learning rate of I-JEPA and V-JEPA 1.
pub fn warmup_cosine(step: u64, [start, reference, end]: [f64; 3], warmup: u64, last: u64) -> f64 {
    if step < warmup {
        return linear(step, [start, reference], warmup);
    }
    cosine(step - warmup, [reference, end], last.saturating_sub(warmup))
}

/// From `start` straight to `reference` at step `warmup`, constant, and in the last `anneal` steps straight to `end` at step
/// `last`. The learning rate of V-JEPA 2-AC.
pub fn warmup_stable_decay(
    step: u64,
    [start, reference, end]: [f64; 3],
    warmup: u64,
    anneal: u64,
    last: u64,
) -> f64 {
    if step < warmup {
        return linear(step, [start, reference], warmup);
    }
    let stable = last.saturating_sub(anneal);
    if step < stable {
        return reference;
    }
    linear(step - stable, [reference, end], anneal)
}

/// From `start` straight to `end` at step `last` and after it. The learning rate in V-JEPA 2's cooldown.
pub fn linear(step: u64, [start, end]: [f64; 2], last: u64) -> f64 {
    if step >= last {
        return end;
    }
    start + step as f64 / last as f64 * (end - start)
}

/// From `start` in half a cosine to `end` at step `last` and after it. The weight decay of I-JEPA and V-JEPA 1.
pub fn cosine(step: u64, [start, end]: [f64; 2], last: u64) -> f64 {
    if step >= last {
        return end;
    }
    let angle = std::f64::consts::PI * step as f64 / last as f64;
    end + (start - end) * 0.5 * (1.0 + angle.cos())
}

/// From `start` straight to `end` after `length` updates, which need not be whole. The momentum of I-JEPA and V-JEPA 1.
pub fn linear_ema(update: u64, [start, end]: [f64; 2], length: f64) -> f64 {
    if update as f64 >= length {
        return end;
    }
    start + update as f64 * (end - start) / length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64, digits: i32) {
        let off = (got - expected).abs();
        assert!(
            off <= 0.5 * 10f64.powi(-digits),
            "{got}, {expected} expected"
        );
    }

    #[test]
    fn a_short_run_has_the_values_of_the_original() {
        // Specification, section 1: printed by I-JEPA's own code.
        let schedule = Schedule {
            steps: 200,
            warmup_steps: Some(40),
            ..Schedule::default()
        };
        schedule.check().unwrap();
        let rates = [
            (1, 2.2e-4),
            (39, 9.8e-4),
            (40, 1e-3),
            (41, 9.999037e-4),
            (100, 6.916504e-4),
            (120, 5.005e-4),
            (199, 1.0963e-6),
        ];
        for (step, lr) in rates {
            close(schedule.lr(step), lr, 10);
        }
        let decays = [
            (1, 0.0400222062),
            (40, 0.074376941),
            (100, 0.22),
            (200, 0.4),
        ];
        for (step, decay) in decays {
            close(schedule.weight_decay(step), decay, 10);
        }
    }

    #[test]
    fn a_stretched_run_ends_before_the_final_values() {
        // V-JEPA 1: 300 epochs of 300 steps, warm-up of 40 epochs. Its last learning rate and momentum: specification.
        let schedule = Schedule::vjepa(90_000);
        schedule.check().unwrap();
        close(schedule.lr(6_000), 4.125e-4, 12);
        close(schedule.lr(12_000), 6.25e-4, 15);
        close(schedule.lr(90_000), 7.50422e-5, 10);
        close(schedule.ema(90_000), 0.9996, 12);
        assert_eq!(schedule.lr(112_500), 1e-6);
        assert_eq!(schedule.ema(112_500), 1.0);
    }

    #[test]
    fn v_jepa_1_is_stretched_in_everything_but_its_warm_up() {
        let schedule = Schedule::vjepa(90_000);
        // Half a cosine over 112,500 steps: half-way at 56,250, and cos(4π/5) = −(1 + √5)/4 at the run's end.
        close(schedule.weight_decay(56_250), 0.22, 12);
        let end = 0.4 - 0.36 * 0.5 * (1.0 - (1.0 + 5f64.sqrt()) / 4.0);
        close(schedule.weight_decay(90_000), end, 12);
        // Straight: half of 0.002 in half of it.
        close(schedule.ema(56_250), 0.999, 12);
        assert_eq!(schedule.ema(0), 0.998);
    }

    #[test]
    fn v_jepa_2_is_constant_once_it_is_warm() {
        for (schedule, lr, warmup) in [
            (Schedule::vjepa2(240_000), 5.25e-4, 12_000),
            (Schedule::vjepa21(300_000), 6e-4, 12_000),
        ] {
            schedule.check().unwrap();
            assert_eq!(schedule.warmup(), warmup);
            close(schedule.lr(warmup / 2), (1e-4 + lr) / 2.0, 12);
            for step in [1, warmup, 100_000, schedule.steps] {
                close(schedule.weight_decay(step), 0.04, 15);
                close(schedule.ema(step - 1), 0.99925, 15);
                close(schedule.lr(step.max(warmup)), lr, 15);
            }
        }
    }

    #[test]
    fn a_run_may_keep_its_learning_rate_until_it_anneals() {
        // V-JEPA 2-AC: 315 epochs of 300 steps, of which 15 warm up and 15 anneal. Specification, sections 1 and 9.
        let schedule = Schedule {
            steps: 94_500,
            start_lr: 7.5e-5,
            lr: 4.25e-4,
            final_lr: 0.0,
            warmup_steps: Some(4_500),
            anneal_steps: Some(4_500),
            ..Schedule::default()
        };
        schedule.check().unwrap();
        close(schedule.lr(2_250), 2.5e-4, 12);
        for step in [4_500, 50_000, 90_000] {
            assert_eq!(schedule.lr(step), 4.25e-4);
        }
        close(schedule.lr(92_250), 2.125e-4, 12);
        assert_eq!(schedule.lr(94_500), 0.0);
        // As stretched to so short a run that a twenty-first of it is no step.
        let short = Schedule {
            steps: 6,
            warmup_steps: Some(0),
            anneal_steps: Some(0),
            ..schedule.clone()
        };
        for step in 0..6 {
            assert_eq!(short.lr(step), 4.25e-4);
        }
        let crowded = Schedule {
            anneal_steps: Some(90_001),
            ..schedule
        };
        assert_eq!(crowded.check().unwrap_err().code(), "bad-config");
    }

    #[test]
    fn constants_come_from_equal_ends_and_nothing_turns_back_after_the_end() {
        let schedule = Schedule {
            steps: 10,
            warmup_steps: Some(0),
            final_lr: 1e-3,
            final_weight_decay: 0.04,
            final_ema: 0.996,
            ..Schedule::default()
        };
        for step in 0..30 {
            let values = [
                schedule.lr(step),
                schedule.weight_decay(step),
                schedule.ema(step),
            ];
            for (got, expected) in values.into_iter().zip([1e-3, 0.04, 0.996]) {
                close(got, expected, 15);
            }
        }
        assert_eq!(Schedule::default().lr(5000), 1e-6);
    }

    #[test]
    fn impossible_schedules_are_refused_by_name() {
        let refused = |text: &str, word: &str| {
            let error = serde_json::from_str::<Schedule>(text).unwrap().check();
            assert!(
                matches!(&error, Err(Error::BadConfig(why)) if why.contains(word)),
                "{text}: {error:?}"
            );
        };
        refused(r#"{"steps":0}"#, "steps");
        refused(r#"{"startLr":-1}"#, "startLr");
        refused(r#"{"finalWeightDecay":-0.1}"#, "finalWeightDecay");
        refused(r#"{"ema":1.1}"#, "ema");
        refused(r#"{"finalEma":-1}"#, "finalEma");
        refused(r#"{"ipeScale":0.5}"#, "ipeScale");
        refused(r#"{"steps":100,"warmupSteps":100}"#, "warmupSteps");
        assert!(serde_json::from_str::<Schedule>(r#"{"warmup":1}"#).is_err());
    }
}
