//! What was compared with what, and how it came out.

use serde::Serialize;
use serde_json::Value;

use crate::expected::Expected;
use crate::tolerance::{Arithmetic, Quantity};

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Fixture file, relative to the folder.
    pub file: String,
    /// What was compared.
    pub check: String,
    /// Largest absolute difference, where numbers were compared.
    pub difference: Option<f64>,
    /// Allowed absolute difference.
    pub tolerance: Option<f64>,
    /// How it came out.
    pub verdict: Verdict,
    /// Why, when it did not pass.
    pub note: String,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Within tolerance.
    Pass,
    /// Out of tolerance, or an error.
    Fail,
    /// Not checked.
    Skip,
}

/// All checks of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// In the order in which they ran.
    pub checks: Vec<Check>,
    #[serde(skip)]
    arithmetic: Arithmetic,
    #[serde(skip)]
    file: String,
}

impl Report {
    /// Empty.
    pub fn new(arithmetic: Arithmetic) -> Self {
        Self {
            checks: Vec::new(),
            arithmetic,
            file: String::new(),
        }
    }

    /// What computes.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Names the fixture file of the checks that follow.
    pub fn file(&mut self, file: &str) {
        file.clone_into(&mut self.file);
    }

    /// Compares `got` with a tensor of the fixture, in any of its formats.
    pub fn compare(
        &mut self,
        check: &str,
        got: &[f32],
        expected: &Value,
        quantity: Quantity,
    ) -> Result<(), String> {
        self.compare_loosely(check, got, expected, quantity, 0.0)
    }

    /// The same, with `more` allowed of the sums of a summary.
    pub fn compare_loosely(
        &mut self,
        check: &str,
        got: &[f32],
        expected: &Value,
        quantity: Quantity,
        more: f64,
    ) -> Result<(), String> {
        let expected = Expected::read(expected).map_err(|why| format!("{check}: {why}"))?;
        let tolerance = quantity.tolerance(self.arithmetic);
        for (part, allowed, result) in expected.differences(got, tolerance) {
            let allowed = if part.ends_with("sum") {
                allowed + more
            } else {
                allowed
            };
            let name = if part.is_empty() {
                check.to_owned()
            } else {
                format!("{check} ({part})")
            };
            match result {
                Ok(difference) => self.number(&name, difference, allowed),
                Err(why) => self.push(&name, None, Some(allowed), Verdict::Fail, why),
            }
        }
        Ok(())
    }

    /// Compares one number.
    pub fn value(
        &mut self,
        check: &str,
        got: f64,
        expected: &Value,
        quantity: Quantity,
    ) -> Result<(), String> {
        let expected = expected
            .as_f64()
            .ok_or_else(|| format!("{check}: no number is expected"))?;
        let tolerance = quantity.tolerance(self.arithmetic);
        self.number(check, (got - expected).abs(), tolerance);
        Ok(())
    }

    /// Records a difference against its tolerance.
    pub fn number(&mut self, check: &str, difference: f64, tolerance: f64) {
        // Written so that a NaN fails.
        let verdict = if difference <= tolerance {
            Verdict::Pass
        } else {
            Verdict::Fail
        };
        self.push(
            check,
            Some(difference),
            Some(tolerance),
            verdict,
            String::new(),
        );
    }

    /// Records that something could not be checked because of an error.
    pub fn failed(&mut self, file: &str, check: &str, why: &str) {
        self.file(file);
        self.push(check, None, None, Verdict::Fail, why.to_owned());
    }

    /// Records that something was not checked.
    pub fn skipped(&mut self, check: &str, why: &str) {
        self.push(check, None, None, Verdict::Skip, why.to_owned());
    }

    fn push(
        &mut self,
        check: &str,
        difference: Option<f64>,
        tolerance: Option<f64>,
        verdict: Verdict,
        note: String,
    ) {
        self.checks.push(Check {
            file: self.file.clone(),
            check: check.to_owned(),
            difference,
            tolerance,
            verdict,
            note,
        });
    }
}
