//! Linear classifiers of embeddings: ridge regression in closed form, and logistic regression by descent.

use serde::{Deserialize, Serialize};

use super::dots::{dot, dots, gram};
use super::symmetric::Tridiagonal;
use super::{Prediction, Samples, rows, softmax};
use crate::rng::Generator;
use crate::{Error, Result};

/// Standard deviations below this share of the mean, or of the largest deviation, are rounding of a constant in f32.
const CONSTANT: f64 = 1e-6;

/// Ridges that cross-validation compares, in units of the mean eigenvalue: 10⁻⁶ to 10³, four a decade.
const RIDGES: std::ops::RangeInclusive<i32> = -24..=12;

/// What the scores of a probe are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Least squares to 1 for the class and 0 for the others: about a share, but possibly below 0 or above 1.
    Ridge,
    /// Probabilities, of sum 1.
    Logistic,
}

/// A trained classifier. Its JSON is all of it: read back with [`LinearProbe::from_json`], it predicts the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinearProbe {
    /// What the scores are.
    pub kind: Kind,
    /// Of standardised features, `[classes, d]`.
    pub weights: Vec<f32>,
    /// `[classes]`.
    pub bias: Vec<f32>,
    /// Mean of each feature in training, `[d]`.
    pub mean: Vec<f32>,
    /// Standard deviation of each feature in training, `[d]`; 1 where it was constant.
    pub std: Vec<f32>,
}

/// How strongly the weights of a ridge regression are pulled to 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ridge {
    /// The one of the least generalised cross-validation error n · RSS / (n − degrees of freedom)² (Golub, Heath &
    /// Wahba 1979): close to leaving each sample out in turn, without doing it.
    CrossValidated,
    /// This, times the squared length of the weights, is added to the sum of squares.
    Given(f64),
}

/// How a logistic regression is trained: Adam (Kingma & Ba 2015) with its published moments, in shuffled batches, with a
/// learning rate that falls to 0 as half a cosine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Descent {
    /// How often the weights are moved.
    pub steps: usize,
    /// Samples of a step; all of them if there are fewer.
    pub batch: usize,
    /// Learning rate of the first step.
    pub learning_rate: f64,
    /// Half of this, times the squared length of the weights, is added to the mean cross-entropy.
    pub weight_decay: f64,
}

impl Default for Descent {
    fn default() -> Self {
        Self {
            steps: 2000,
            batch: 256,
            learning_rate: 0.01,
            weight_decay: 1e-4,
        }
    }
}

impl LinearProbe {
    /// Fits a ridge regression to one-hot classes; returns the ridge as well, as [`Ridge::Given`] takes it.
    ///
    /// Costs the cube of the smaller one of samples and dimensions: a second for 784.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the samples cannot be used or are of one class, or the ridge is not above 0.
    pub fn ridge(samples: &Samples, ridge: Ridge) -> Result<(Self, f64)> {
        let scale = Scale::of(samples)?;
        let Samples { d, classes, .. } = *samples;
        let n = samples.labels.len();
        let share: Vec<f64> = (0..classes)
            .map(|class| {
                samples
                    .labels
                    .iter()
                    .filter(|&&label| label == class)
                    .count() as f64
                    / n as f64
            })
            .collect();
        let target = |class: usize, i: usize| f64::from(samples.labels[i] == class) - share[class];

        // The smaller of the two: with d features, the normal equations; with n samples, one multiplier for each.
        let primal = d <= n;
        let columns = scale.columns(samples);
        let (products, right): (Vec<f64>, Vec<Vec<f64>>) = if primal {
            let projected = |class: usize| {
                let targets: Vec<f64> = (0..n).map(|i| target(class, i)).collect();
                columns
                    .chunks_exact(n)
                    .map(|column| dot(column, &targets))
                    .collect()
            };
            (gram(&columns, d), (0..classes).map(projected).collect())
        } else {
            let targets = |class| (0..n).map(|i| target(class, i)).collect();
            (
                gram(&transposed(&columns, n), n),
                (0..classes).map(targets).collect(),
            )
        };
        let side = d.min(n);
        let problem = Problem {
            // Σ (one-hot − share)² of a class.
            squares: share.iter().map(|p| n as f64 * p * (1.0 - p)).sum(),
            n,
            primal,
            matrix: Tridiagonal::new(products, side),
            right,
        };
        let (ridge, solution) = problem.solved(ridge)?;

        let mut weights = Vec::with_capacity(classes * d);
        for solved in &solution {
            if primal {
                weights.extend(solved.iter().map(|&weight| weight as f32));
            } else {
                weights.extend(
                    columns
                        .chunks_exact(n)
                        .map(|column| dot(column, solved) as f32),
                );
            }
        }
        let probe = scale.probe(
            Kind::Ridge,
            weights,
            share.iter().map(|&p| p as f32).collect(),
        );
        Ok((probe, ridge))
    }

    /// Fits a multinomial logistic regression; `random` shuffles the samples.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the samples cannot be used or are of one class, or a setting is out of its range.
    pub fn logistic(
        samples: &Samples,
        descent: Descent,
        random: &mut impl Generator,
    ) -> Result<Self> {
        let scale = Scale::of(samples)?;
        descent.check()?;
        let Samples { d, classes, .. } = *samples;
        let n = samples.labels.len();
        let features = scale.rows(samples.features);
        let batch = descent.batch.min(n);
        // Weights and bias of one class side by side.
        let mut parameters = vec![0f32; classes * (d + 1)];
        let mut gradient = vec![0f32; parameters.len()];
        let mut scores = vec![0f32; classes];
        let mut adam = Adam::new(parameters.len());
        let mut order = Vec::new();
        for step in 0..descent.steps {
            if order.len() < batch {
                order = random.permutation(n);
            }
            let batch = order.split_off(order.len() - batch);
            for (gradient, parameters) in gradient
                .chunks_exact_mut(d + 1)
                .zip(parameters.chunks_exact(d + 1))
            {
                for (gradient, weight) in gradient.iter_mut().zip(parameters) {
                    *gradient = descent.weight_decay as f32 * weight;
                }
                gradient[d] = 0.0;
            }
            for &i in &batch {
                let row = &features[i * d..(i + 1) * d];
                for (score, parameters) in scores.iter_mut().zip(parameters.chunks_exact(d + 1)) {
                    *score = parameters[d] + dots::<f32, 1, 8>([parameters], row)[0];
                }
                softmax(&mut scores);
                scores[samples.labels[i]] -= 1.0;
                for (gradient, score) in gradient.chunks_exact_mut(d + 1).zip(&scores) {
                    let share = score / batch.len() as f32;
                    for (gradient, value) in gradient.iter_mut().zip(row) {
                        *gradient += share * value;
                    }
                    gradient[d] += share;
                }
            }
            let passed = step as f64 / descent.steps as f64;
            let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * passed));
            adam.step(&mut parameters, &gradient, descent.learning_rate * cosine);
        }
        let bias = parameters
            .chunks_exact(d + 1)
            .map(|class| class[d])
            .collect();
        let weights = parameters.chunks_exact(d + 1).flat_map(|class| &class[..d]);
        Ok(scale.probe(Kind::Logistic, weights.copied().collect(), bias))
    }

    /// Reads what serde wrote.
    ///
    /// # Errors
    /// [`Error::BadInput`] if it is no probe, or its numbers contradict each other.
    pub fn from_json(text: &str) -> Result<Self> {
        let probe: Self = serde_json::from_str(text)
            .map_err(|error| Error::BadInput(format!("This is not a saved probe: {error}.")))?;
        let d = probe.mean.len();
        let classes = probe.bias.len();
        let numbers = [&probe.weights, &probe.bias, &probe.mean, &probe.std];
        if d == 0
            || classes == 0
            || probe.std.len() != d
            || classes.checked_mul(d) != Some(probe.weights.len())
            || numbers
                .into_iter()
                .flatten()
                .any(|value| !value.is_finite())
            || probe.std.iter().any(|&std| std <= 0.0)
        {
            return Err(Error::BadInput(
                "The saved probe contradicts itself; save it again from training.".into(),
            ));
        }
        Ok(probe)
    }

    /// The classes of `[n, d]` embeddings; [`Kind`] says what the scores are.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the embeddings have another length than those in training, are none or are not finite.
    pub fn predict(&self, features: &[f32]) -> Result<Prediction> {
        let d = self.mean.len();
        let n = rows(features, d)?;
        let classes = self.bias.len();
        let mut scores = Vec::with_capacity(n * classes);
        let mut row = vec![0.0; d];
        for features in features.chunks_exact(d) {
            for (j, value) in row.iter_mut().enumerate() {
                *value = (features[j] - self.mean[j]) / self.std[j];
            }
            let first = scores.len();
            for (weights, bias) in self.weights.chunks_exact(d).zip(&self.bias) {
                scores.push(bias + dots::<f32, 1, 8>([weights], &row)[0]);
            }
            if self.kind == Kind::Logistic {
                softmax(&mut scores[first..]);
            }
        }
        Ok(Prediction::of(scores, classes))
    }
}

impl Descent {
    fn check(&self) -> Result<()> {
        let within = |value: f64, low: f64| value >= low && value <= 1e3;
        if self.steps == 0
            || self.batch == 0
            || !within(self.learning_rate, f64::MIN_POSITIVE)
            || !within(self.weight_decay, 0.0)
        {
            return Err(Error::BadInput(format!(
                "{self:?} cannot train a probe: steps, batch and learning rate must be above 0, weight decay not below, and \
                 the last two at most 1000."
            )));
        }
        Ok(())
    }
}

/// Mean and standard deviation of the features in training.
struct Scale {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Scale {
    fn of(samples: &Samples) -> Result<Self> {
        samples.check()?;
        if samples
            .labels
            .iter()
            .all(|label| *label == samples.labels[0])
        {
            return Err(Error::BadInput(
                "All labelled embeddings are of one class; a classifier needs two at least.".into(),
            ));
        }
        let d = samples.d;
        let n = samples.labels.len() as f64;
        let mut mean = vec![0.0; d];
        let mut std = vec![0.0; d];
        for row in samples.features.chunks_exact(d) {
            mean.iter_mut()
                .zip(row)
                .for_each(|(mean, &value)| *mean += f64::from(value) / n);
        }
        for row in samples.features.chunks_exact(d) {
            for ((std, mean), &value) in std.iter_mut().zip(&mean).zip(row) {
                *std += (f64::from(value) - mean).powi(2) / n;
            }
        }
        std.iter_mut().for_each(|std| *std = std.sqrt());
        let largest = std.iter().copied().fold(0.0, f64::max);
        for (std, mean) in std.iter_mut().zip(&mean) {
            if *std <= CONSTANT * mean.abs().max(largest) {
                *std = 1.0;
            }
        }
        Ok(Self { mean, std })
    }

    /// Standardised features, `[n, d]`.
    fn rows(&self, features: &[f32]) -> Vec<f32> {
        let d = self.mean.len();
        let standardised = |(i, &value): (usize, &f32)| {
            ((f64::from(value) - self.mean[i % d]) / self.std[i % d]) as f32
        };
        features.iter().enumerate().map(standardised).collect()
    }

    /// Standardised features, `[d, n]`.
    fn columns(&self, samples: &Samples) -> Vec<f64> {
        let mut columns = Vec::with_capacity(samples.features.len());
        for (j, (mean, std)) in self.mean.iter().zip(&self.std).enumerate() {
            let column = samples.features.iter().skip(j).step_by(samples.d);
            columns.extend(column.map(|&value| (f64::from(value) - mean) / std));
        }
        columns
    }

    fn probe(self, kind: Kind, weights: Vec<f32>, bias: Vec<f32>) -> LinearProbe {
        let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        LinearProbe {
            kind,
            weights,
            bias,
            mean: single(self.mean),
            std: single(self.std),
        }
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed(matrix: &[f64], columns: usize) -> Vec<f64> {
    (0..columns)
        .flat_map(|j| matrix.iter().skip(j).step_by(columns).copied())
        .collect()
}

/// (M + ridge) x = right for every class. M = ZᵀZ and right = Zᵀy, of which x are the weights, or M = ZZᵀ and right = y,
/// of which x are the residuals over the ridge, and Zᵀx the weights.
struct Problem {
    /// Σ y² over samples and classes.
    squares: f64,
    n: usize,
    primal: bool,
    matrix: Tridiagonal,
    right: Vec<Vec<f64>>,
}

impl Problem {
    /// The ridge, and x for each class.
    fn solved(mut self, ridge: Ridge) -> Result<(f64, Vec<Vec<f64>>)> {
        self.right
            .iter_mut()
            .for_each(|right| self.matrix.rotate(right));
        let ridge = match ridge {
            Ridge::Given(ridge) if ridge > 0.0 && ridge.is_finite() => ridge,
            Ridge::Given(ridge) => {
                return Err(Error::BadInput(format!(
                    "A ridge of {ridge} cannot be used; it must be above 0."
                )));
            }
            Ridge::CrossValidated => self.cross_validated(),
        };
        let mut solution = self.in_basis(ridge);
        solution.iter_mut().for_each(|x| self.matrix.rotate_back(x));
        Ok((ridge, solution))
    }

    /// In the basis of the tridiagonal matrix, where a solution costs no more than its size.
    fn in_basis(&self, ridge: f64) -> Vec<Vec<f64>> {
        let mut solution = self.right.clone();
        solution
            .iter_mut()
            .for_each(|x| self.matrix.solve(ridge, x));
        solution
    }

    fn cross_validated(&self) -> f64 {
        let eigenvalues = self.matrix.eigenvalues();
        let mean = eigenvalues.iter().sum::<f64>() / eigenvalues.len() as f64;
        // Features that are all constant leave nothing to choose.
        let unit = if mean > 0.0 { mean } else { 1.0 };
        let ridges = RIDGES.map(|quarters| unit * libm::pow(10.0, f64::from(quarters) / 4.0));
        let errors = ridges.map(|ridge| (self.error(ridge, &eigenvalues), ridge));
        errors
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(unit, |(_, ridge)| ridge)
    }

    /// The generalised cross-validation error.
    fn error(&self, ridge: f64, eigenvalues: &[f64]) -> f64 {
        // The intercept takes one degree of freedom of its own.
        let used: f64 = eigenvalues
            .iter()
            .map(|value| value.max(0.0))
            .map(|e| e / (e + ridge))
            .sum();
        let free = self.n as f64 - 1.0 - used;
        let solution = self.in_basis(ridge);
        let lengths: f64 = solution.iter().map(|x| dot(x, x)).sum();
        let residual = if self.primal {
            let explained: f64 = solution
                .iter()
                .zip(&self.right)
                .map(|(x, b)| dot(x, b))
                .sum();
            // |y − Zx|² = |y|² − x·Zᵀy − ridge |x|², by the equation that x solves.
            (self.squares - explained - ridge * lengths).max(0.0)
        } else {
            ridge * ridge * lengths
        };
        self.n as f64 * residual / (free * free)
    }
}

/// First and second moments of the gradient.
struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: u32,
}

impl Adam {
    fn new(count: usize) -> Self {
        Self {
            first: vec![0.0; count],
            second: vec![0.0; count],
            steps: 0,
        }
    }

    fn step(&mut self, parameters: &mut [f32], gradient: &[f32], learning_rate: f64) {
        const KEPT: [f32; 2] = [0.9, 0.999];
        self.steps += 1;
        let [first, second] =
            KEPT.map(|kept| 1.0 - libm::pow(f64::from(kept), f64::from(self.steps)));
        let rate = (learning_rate / first) as f32;
        let unbiased = (1.0 / second) as f32;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((parameter, &gradient), (first, second)) in
            parameters.iter_mut().zip(gradient).zip(moments)
        {
            *first += (1.0 - KEPT[0]) * (gradient - *first);
            *second += (1.0 - KEPT[1]) * (gradient * gradient - *second);
            *parameter -= rate * *first / ((*second * unbiased).sqrt() + 1e-8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// Three noisy classes, `[n, d]`, of which feature 1 is constant.
    fn clouds(n: usize, d: usize, seed: u64) -> (Vec<f32>, Vec<usize>) {
        let mut features = vec![0.0; n * d];
        Stream::new(seed, "clouds", 0).fill_normal(&mut features);
        let labels: Vec<usize> = (0..n).map(|i| i % 3).collect();
        for (i, label) in labels.iter().enumerate() {
            features[i * d] += 2.0 * *label as f32;
            features[i * d + 1] = 0.1;
            features[i * d + 2] = 100.0 + 0.01 * features[i * d + 2];
        }
        (features, labels)
    }

    fn samples<'a>(features: &'a [f32], d: usize, labels: &'a [usize]) -> Samples<'a> {
        Samples {
            features,
            d,
            labels,
            classes: 3,
        }
    }

    #[test]
    fn ridge_in_one_dimension() {
        // z = −1, −1, 1, 1, so that a weight is Σzy / (4 + ridge).
        let features = [3.0, 3.0, 7.0, 7.0];
        let labels = [0, 0, 0, 2];
        let (probe, ridge) =
            LinearProbe::ridge(&samples(&features, 1, &labels), Ridge::Given(1.0)).unwrap();
        assert_eq!(ridge, 1.0);
        assert_eq!((probe.mean[0], probe.std[0]), (5.0, 2.0));
        // Class 0 has share ¾: y = ¼, ¼, ¼, −¾, Σzy = −1. Class 2 the opposite. Class 1 never.
        assert_eq!(probe.weights, [-0.2, 0.0, 0.2]);
        assert_eq!(probe.bias, [0.75, 0.0, 0.25]);
        let predicted = probe.predict(&[5.0, 15.0]).unwrap();
        for (score, expected) in predicted
            .scores
            .iter()
            .zip([0.75, 0.0, 0.25, -0.25, 0.0, 1.25])
        {
            assert!((score - expected).abs() < 1e-6);
        }
        assert_eq!(predicted.labels, [0, 2]);
    }

    /// A ridge regression and its cross-validation error by Gaussian elimination and the definition: the hat matrix.
    fn by_definition(samples: &Samples, ridge: f64) -> (f64, Vec<f64>) {
        let (n, d) = (samples.labels.len(), samples.d);
        let z = Scale::of(samples).unwrap().columns(samples);
        // Column i of the system: (ZᵀZ + ridge) x = Zᵀ eᵢ, so that x · Z is column i of the hat matrix.
        let mut system: Vec<Vec<f64>> = (0..d)
            .map(|a| {
                let left = (0..d).map(|b| {
                    dot(&z[a * n..(a + 1) * n], &z[b * n..(b + 1) * n]) + ridge * f64::from(a == b)
                });
                left.chain((0..n).map(|i| z[a * n + i])).collect()
            })
            .collect();
        for pivot in 0..d {
            let row = system[pivot].clone();
            for other in (0..d).filter(|&other| other != pivot) {
                let share = system[other][pivot] / row[pivot];
                system[other]
                    .iter_mut()
                    .zip(&row)
                    .for_each(|(value, row)| *value -= share * row);
            }
        }
        let solved = |a: usize, i: usize| system[a][d + i] / system[a][a];
        let hat = |i: usize, j: usize| (0..d).map(|a| z[a * n + i] * solved(a, j)).sum::<f64>();
        let mut weights = Vec::new();
        let mut residual = 0.0;
        for class in 0..samples.classes {
            let share = samples.labels.iter().filter(|&&l| l == class).count() as f64 / n as f64;
            let y: Vec<f64> = samples
                .labels
                .iter()
                .map(|&l| f64::from(l == class) - share)
                .collect();
            weights.extend((0..d).map(|a| (0..n).map(|i| solved(a, i) * y[i]).sum::<f64>()));
            for i in 0..n {
                let fitted: f64 = (0..n).map(|j| hat(i, j) * y[j]).sum();
                residual += (y[i] - fitted).powi(2);
            }
        }
        let used: f64 = 1.0 + (0..n).map(|i| hat(i, i)).sum::<f64>();
        (n as f64 * residual / (n as f64 - used).powi(2), weights)
    }

    #[test]
    fn both_forms_agree_with_the_definition() {
        for (n, d) in [(40, 6), (12, 30), (9, 9)] {
            let (features, labels) = clouds(n, d, 1);
            let samples = samples(&features, d, &labels);
            let (_, chosen) = LinearProbe::ridge(&samples, Ridge::CrossValidated).unwrap();
            for ridge in [0.3, 20.0, chosen] {
                let (probe, _) = LinearProbe::ridge(&samples, Ridge::Given(ridge)).unwrap();
                let (_, weights) = by_definition(&samples, ridge);
                for (weight, expected) in probe.weights.iter().zip(weights) {
                    let close = (f64::from(*weight) - expected).abs() < 1e-5;
                    assert!(close, "{n} × {d} at {ridge}: {weight}, not {expected}");
                }
            }
            // Of all ridges that are compared, the chosen one has the least error.
            let least = by_definition(&samples, chosen).0;
            for quarters in -8..=8 {
                let other = chosen * 10f64.powf(f64::from(quarters) / 4.0);
                assert!(
                    by_definition(&samples, other).0 >= least - 1e-9,
                    "{n} × {d}: {quarters}"
                );
            }
        }
    }

    #[test]
    fn constant_features_have_no_say() {
        let (features, labels) = clouds(60, 5, 2);
        let samples = samples(&features, 5, &labels);
        let (ridge, _) = LinearProbe::ridge(&samples, Ridge::CrossValidated).unwrap();
        let logistic =
            LinearProbe::logistic(&samples, Descent::default(), &mut Stream::new(1, "", 0))
                .unwrap();
        for probe in [ridge, logistic] {
            assert_eq!(probe.std[1], 1.0);
            // A feature of 100 ± 0.01 is none of them.
            assert!((probe.std[2] - 0.01).abs() < 0.003);
            let mut moved = features.clone();
            moved
                .iter_mut()
                .skip(1)
                .step_by(5)
                .for_each(|value| *value += 1e-3);
            let scores = |features| probe.predict(features).unwrap().scores;
            for (a, b) in scores(&features).iter().zip(scores(&moved)) {
                assert!((a - b).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn logistic_regression_ends_at_the_minimum() {
        let (features, labels) = clouds(90, 4, 3);
        let samples = samples(&features, 4, &labels);
        let descent = Descent {
            steps: 3000,
            batch: 90,
            learning_rate: 0.05,
            weight_decay: 0.05,
        };
        let probe = LinearProbe::logistic(&samples, descent, &mut Stream::new(2, "", 0)).unwrap();
        // There, the gradient of mean cross-entropy plus decay is 0.
        let predicted = probe.predict(&features).unwrap();
        for class in 0..3 {
            let error = |i: usize| {
                f64::from(predicted.scores[i * 3 + class]) - f64::from(labels[i] == class)
            };
            let bias: f64 = (0..90).map(error).sum::<f64>() / 90.0;
            assert!(bias.abs() < 1e-4, "{bias}");
            for j in 0..4 {
                let z = |i: usize| f64::from((features[i * 4 + j] - probe.mean[j]) / probe.std[j]);
                let slope: f64 = (0..90).map(|i| error(i) * z(i)).sum::<f64>() / 90.0
                    + 0.05 * f64::from(probe.weights[class * 4 + j]);
                assert!(slope.abs() < 1e-4, "{slope}");
            }
        }
        let sums = predicted
            .scores
            .chunks_exact(3)
            .map(|row| row.iter().sum::<f32>());
        assert!(sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-6));
    }

    #[test]
    fn what_is_learned_holds_for_other_samples() {
        let (features, labels) = clouds(3000, 6, 4);
        let (others, truth) = clouds(3000, 6, 5);
        let samples = samples(&features, 6, &labels);
        let (ridge, _) = LinearProbe::ridge(&samples, Ridge::CrossValidated).unwrap();
        let mut random = Stream::new(3, "", 0);
        let logistic = LinearProbe::logistic(&samples, Descent::default(), &mut random).unwrap();
        // Best possible, for means 0, 2 and 4 of deviation 1: Φ(1) at the ends, 2 Φ(1) − 1 between them, 0.788 of all. A
        // standard deviation over 3000 is 0.0075.
        let accuracy = |probe: &LinearProbe| probe.predict(&others).unwrap().accuracy(&truth);
        assert!((accuracy(&logistic) - 0.788).abs() < 0.03);
        // Least squares of one-hot classes in a line hides the one in the middle (Hastie et al., The Elements of
        // Statistical Learning, 4.2), so two of three are right.
        assert!((accuracy(&ridge) - 2.0 / 3.0).abs() < 0.05);
        let again = LinearProbe::logistic(&samples, Descent::default(), &mut Stream::new(3, "", 0));
        assert_eq!(again.unwrap(), logistic);
    }

    #[test]
    fn a_saved_probe_predicts_the_same() {
        let (features, labels) = clouds(30, 4, 6);
        let samples = samples(&features, 4, &labels);
        let (probe, _) = LinearProbe::ridge(&samples, Ridge::Given(1.0)).unwrap();
        let text = serde_json::to_string(&probe).unwrap();
        assert_eq!(LinearProbe::from_json(&text).unwrap(), probe);
        let mut broken = probe.clone();
        broken.weights.pop();
        let short = serde_json::to_string(&broken).unwrap();
        let zero = text.replace("\"std\":[", "\"std\":[0.0,");
        for text in ["{}", "[]", &short, &zero] {
            assert_eq!(
                LinearProbe::from_json(text).unwrap_err().code(),
                "bad-input"
            );
        }
    }

    #[test]
    fn what_teaches_nothing_is_refused() {
        let refused = |labels: &[usize], ridge| {
            let features = [1.0, 2.0, 3.0, 4.0];
            LinearProbe::ridge(&samples(&features, 2, labels), ridge)
                .unwrap_err()
                .code()
        };
        assert_eq!(refused(&[1, 1], Ridge::CrossValidated), "bad-input");
        assert_eq!(refused(&[0, 3], Ridge::CrossValidated), "bad-input");
        for ridge in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(refused(&[0, 1], Ridge::Given(ridge)), "bad-input");
        }
        let features = [1.0, 2.0, 3.0, 4.0];
        let two = samples(&features, 2, &[0, 1]);
        let (probe, ridge) = LinearProbe::ridge(&two, Ridge::CrossValidated).unwrap();
        assert!(ridge.is_finite() && ridge > 0.0);
        assert_eq!(probe.predict(&features).unwrap().labels, [0, 1]);
        for change in [
            |d: &mut Descent| d.steps = 0,
            |d: &mut Descent| d.batch = 0,
            |d: &mut Descent| d.learning_rate = f64::NAN,
            |d: &mut Descent| d.weight_decay = -1.0,
        ] {
            let mut descent = Descent::default();
            change(&mut descent);
            let refusal = LinearProbe::logistic(&two, descent, &mut Stream::new(1, "", 0));
            assert_eq!(refusal.unwrap_err().code(), "bad-input");
        }
        // All features constant: nothing but the shares.
        let constant = samples(&[1.0; 6], 2, &[0, 0, 1]);
        let (probe, _) = LinearProbe::ridge(&constant, Ridge::CrossValidated).unwrap();
        assert_eq!(probe.weights, [0.0; 6]);
        assert_eq!(probe.predict(&[1.0; 2]).unwrap().labels, [0]);
    }
}
