//! How surprise is judged.

use std::cmp::Ordering;

use serde::Serialize;
use webjepa::rng::{Generator, Stream};

/// Times that labels are exchanged at random for the control.
const EXCHANGES: usize = 1000;

/// Surprise at what cannot happen, pair by pair beside surprise at what can.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Number of pairs.
    pub pairs: usize,
    /// Area under the ROC curve, of all values of one kind against all of the other.
    pub auc: f64,
    /// The share of pairs in which the impossible one surprises more.
    pub larger_in_pair: f64,
    /// In the middle of the possible ones.
    pub median_possible: f64,
    /// In the middle of the impossible ones.
    pub median_impossible: f64,
}

/// The same numbers where in each pair chance decides which of the two is called impossible.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// Mean of the areas.
    pub auc: f64,
    /// Below it are 95 % of the areas.
    pub auc_of_95_percent: f64,
    /// The share of exchanges whose area reaches the true one.
    pub reaching: f64,
}

impl Compared {
    /// Of as many values of both kinds, one at least, in the order of the pairs.
    pub fn of(impossible: &[f64], possible: &[f64]) -> Self {
        let pairs = impossible.iter().zip(possible);
        let larger = pairs.filter(|(violation, control)| violation > control);
        Self {
            pairs: possible.len(),
            auc: area_under_curve(impossible, possible),
            larger_in_pair: larger.count() as f64 / possible.len() as f64,
            median_possible: median(possible),
            median_impossible: median(impossible),
        }
    }
}

impl Control {
    /// Of the pairs that [`Compared::of`] takes.
    pub fn of(impossible: &[f64], possible: &[f64], seed: u64) -> Self {
        let truth = area_under_curve(impossible, possible);
        let mut random = Stream::new(seed, "control", 0);
        let mut exchanged = || {
            let pairs = impossible.iter().zip(possible);
            let (one, other): (Vec<f64>, Vec<f64>) = pairs
                .map(|(&a, &b)| match random.uniform() < 0.5 {
                    true => (a, b),
                    false => (b, a),
                })
                .unzip();
            area_under_curve(&one, &other)
        };
        let mut areas: Vec<f64> = (0..EXCHANGES).map(|_| exchanged()).collect();
        areas.sort_by(f64::total_cmp);
        let reaching = areas.iter().filter(|&&area| area >= truth).count();
        Self {
            auc: areas.iter().sum::<f64>() / EXCHANGES as f64,
            auc_of_95_percent: areas[EXCHANGES * 95 / 100],
            reaching: reaching as f64 / EXCHANGES as f64,
        }
    }
}

/// How often one of `positives` is larger than one of `negatives`, of all their pairs, ties by half.
fn area_under_curve(positives: &[f64], negatives: &[f64]) -> f64 {
    let won = |positive: f64| -> f64 {
        let against = |&negative: &f64| match positive.total_cmp(&negative) {
            Ordering::Greater => 1.0,
            Ordering::Equal => 0.5,
            Ordering::Less => 0.0,
        };
        negatives.iter().map(against).sum()
    };
    let all: f64 = positives.iter().map(|&positive| won(positive)).sum();
    all / (positives.len() * negatives.len()) as f64
}

/// The middle of some values, one at least.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_the_share_of_pairs_that_are_told_apart() {
        assert_eq!(area_under_curve(&[3.0, 4.0], &[1.0, 2.0]), 1.0);
        assert_eq!(area_under_curve(&[1.0, 2.0], &[3.0, 4.0]), 0.0);
        assert_eq!(area_under_curve(&[1.0, 2.0], &[1.0, 2.0]), 0.5);
        // 3 beats both, 2 beats 1 and ties with 2.
        assert_eq!(area_under_curve(&[3.0, 2.0], &[1.0, 2.0]), 0.875);
    }

    #[test]
    fn areas_and_pairs_by_hand() {
        // Of nine comparisons 2 > 1, and 4 and 5 win all of theirs but for one tie: 1 + 2.5 + 3.
        let compared = Compared::of(&[2.0, 4.0, 5.0], &[1.0, 3.0, 4.0]);
        assert!((compared.auc - 6.5 / 9.0).abs() < 1e-12);
        assert_eq!(compared.larger_in_pair, 1.0);
        assert_eq!(
            [compared.median_possible, compared.median_impossible],
            [3.0, 4.0]
        );
    }

    #[test]
    fn exchanged_labels_tell_nothing() {
        let possible: Vec<f64> = (0..40).map(f64::from).collect();
        let impossible: Vec<f64> = possible.iter().map(|v| v + 10.0).collect();
        let control = Control::of(&impossible, &possible, 1);
        assert!((control.auc - 0.5).abs() < 0.02, "{}", control.auc);
        assert_eq!(control.reaching, 0.0);
        let same = Control::of(&possible, &possible, 1);
        assert_eq!([same.auc, same.reaching], [0.5, 1.0]);
    }
}
