//! Expected numbers in the fixtures' formats (README, section 2).

use serde_json::Value;

/// A tensor of a fixture, whole or summarised.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Every value.
    Full(Vec<f64>),
    /// Ends and sums.
    Summary {
        /// Number of values.
        count: usize,
        /// Sum of all values.
        sum: f64,
        /// Sum of absolute values.
        abs_sum: f64,
        /// The first values, row-major.
        first: Vec<f64>,
        /// The last values, row-major.
        last: Vec<f64>,
    },
}

/// Name of the part, tolerance, and the difference or why there is none.
type Difference = (&'static str, f64, Result<f64, String>);

impl Expected {
    /// Reads a full tensor, a summary, or a nested list of numbers.
    pub fn read(value: &Value) -> Result<Self, String> {
        let list = |key: &str| value.get(key).map(flat).unwrap_or_default();
        let number = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_f64)
                .ok_or(format!("no number \"{key}\""))
        };
        if value.is_array() {
            return Ok(Self::Full(flat(value)));
        }
        if value.get("data").is_some() {
            return Ok(Self::Full(list("data")));
        }
        Ok(Self::Summary {
            count: list("shape").iter().product::<f64>() as usize,
            sum: number("sum")?,
            abs_sum: number("abs_sum")?,
            first: list("first"),
            last: list("last"),
        })
    }

    /// The differences to `got`: one for a full tensor; one for the ends and one for each sum of a summary.
    pub fn differences(&self, got: &[f32], tolerance: f64) -> Vec<Difference> {
        let wrong = |count: usize| Err(format!("{} values, {count} expected", got.len()));
        match self {
            Self::Full(values) if values.len() != got.len() => {
                vec![("", tolerance, wrong(values.len()))]
            }
            Self::Full(values) => vec![("", tolerance, Ok(largest(got, values)))],
            Self::Summary { count, .. } if *count != got.len() => {
                vec![("", tolerance, wrong(*count))]
            }
            Self::Summary {
                count,
                sum,
                abs_sum,
                first,
                last,
            } => {
                let ends = largest(got, first).max(largest(&got[got.len() - last.len()..], last));
                let allowed = 4.0 * tolerance * (*count as f64).sqrt();
                let total: f64 = got.iter().map(|&v| f64::from(v)).sum();
                let abs_total: f64 = got.iter().map(|&v| f64::from(v).abs()).sum();
                vec![
                    ("ends", tolerance, Ok(ends)),
                    ("sum", allowed, Ok((total - sum).abs())),
                    ("abs sum", allowed, Ok((abs_total - abs_sum).abs())),
                ]
            }
        }
    }
}

/// The largest absolute difference; NaN when there is one.
pub fn largest(got: &[f32], expected: &[f64]) -> f64 {
    got.iter()
        .zip(expected)
        .map(|(&g, &e)| (f64::from(g) - e).abs())
        .fold(0.0, |worst, d| {
            if d.is_nan() || worst.is_nan() {
                f64::NAN
            } else {
                worst.max(d)
            }
        })
}

/// All numbers of a nested list, in order.
pub fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        other => other.as_f64().into_iter().collect(),
    }
}
