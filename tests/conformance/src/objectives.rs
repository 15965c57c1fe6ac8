//! `sigreg_vicreg.json` and `lejepa_loss.json`: training objectives and their gradients.

use serde_json::Value;
use webjepa::objective::lejepa::{Form, LeJepa};
use webjepa::objective::sigreg::{Directions, Quadrature, SigReg};
use webjepa::objective::vicreg::{Hinge, VicReg, covariance, hinge_std};
use webjepa::rng::{Generator, Stream};

use crate::expected::flat;
use crate::folder::{Folder, sizes};
use crate::report::Report;
use crate::tolerance::Quantity;

type Outcome = Result<(), String>;

/// See [`monte_carlo`]: 8192 samples leave a standard error of about 0.01.
const LEAST_SAMPLES: usize = 8192;
/// The kinds of cases that are about `vic_z1` and `vic_z2`.
const VICREG: [&str; 4] = [
    "vicreg",
    "vicreg_grad_wrt_z1",
    "hinge_std",
    "off_diagonal_covariance",
];

pub fn sigreg_vicreg(folder: &Folder, file: &str, report: &mut Report) -> Outcome {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    for case in entry["cases"].as_array().ok_or("no cases")? {
        let key = case["key"].as_str().ok_or("a case has no key")?;
        let kind = case["kind"].as_str().ok_or("a case has no kind")?;
        let wanted = &expected[key];
        if VICREG.contains(&kind) {
            vicreg(report, key, case, &expected)?;
            continue;
        }
        let variant = variant(case)?;
        match kind {
            "per_slice" | "mean_over_slices" | "grad_of_mean_wrt_x" => {
                let (x, [n, d]) = matrix(&expected["x"])?;
                let (columns, shape) = matrix(&expected["A_unit_columns"])?;
                let directions = Directions::from_columns(&columns, shape).map_err(text)?;
                let shape = [1, n, d];
                if kind == "per_slice" {
                    let statistics = variant.statistics(&x, shape, &directions).map_err(text)?;
                    report.compare(key, &narrow(&statistics), wanted, Quantity::Statistic)?;
                    continue;
                }
                let evaluated = variant.evaluate(&x, shape, &directions).map_err(text)?;
                if kind == "mean_over_slices" {
                    report.value(key, evaluated.mean, wanted, Quantity::Statistic)?;
                } else {
                    report.compare(key, &evaluated.gradient, wanted, Quantity::Gradient)?;
                }
            }
            "knots" => report.compare(key, &narrow(&variant.knots()), wanted, Quantity::Table)?,
            "quadrature_weights_times_phi" => {
                report.compare(key, &narrow(&variant.weights()), wanted, Quantity::Table)?;
            }
            "all_zero_input" => {
                let n = size(case, "N")?;
                let zeros = vec![0.0; n];
                let statistics = variant.statistics(&zeros, [1, n, 1], &along()?);
                let got = statistics.map_err(text)?[0];
                report.value(key, got, wanted, Quantity::Statistic)?;
            }
            "standard_normal_input_monte_carlo" => {
                let n = size(case, "N")?;
                let got = monte_carlo(&variant, n, size(case, "slices")?, size(case, "repeats")?)?;
                let quantity = if variant.times_n {
                    Quantity::MonteCarlo
                } else {
                    Quantity::MonteCarloPerSample(n)
                };
                report.value(key, got, wanted, quantity)?;
            }
            other => return Err(format!("case {key} is of the unknown kind {other}")),
        }
    }
    Ok(())
}

pub fn lejepa(folder: &Folder, file: &str, report: &mut Report) -> Outcome {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    let params = &entry["params"];
    let global_views = size(params, "n_global_views")?;
    let sigreg = SigReg {
        quadrature: Quadrature::HalfIntervalDoubled,
        t_max: number(params, "sigreg_t_max")?,
        knots: size(params, "sigreg_knots")?,
        times_n: true,
        slices: size(params, "K")?,
    };
    let z = &expected["proj_VND"];
    let shape = sizes(&z["shape"]);
    let shape: [usize; 3] = shape.try_into().map_err(|_| "proj_VND has no 3 axes")?;
    let z = floats(z);
    let (columns, columns_shape) = matrix(&expected["A"])?;
    let directions = Directions::from_columns(&columns, columns_shape).map_err(text)?;
    let losses = |form| {
        LeJepa {
            form,
            lambda: number(params, "lam")?,
            sigreg,
        }
        .evaluate(&z, shape, &directions)
        .map_err(text)
    };

    let minimal = losses(Form::Minimal)?;
    let wanted = &expected["minimal"];
    for (name, got, quantity) in [
        ("sigreg", minimal.sigreg, Quantity::Statistic),
        ("inv", minimal.invariance, Quantity::Loss),
        ("loss", minimal.loss, Quantity::Loss),
    ] {
        report.value(&format!("minimal: {name}"), got, &wanted[name], quantity)?;
    }
    report.compare(
        "minimal: grad",
        &minimal.gradient,
        &wanted["grad"],
        Quantity::Gradient,
    )?;

    let paper = losses(Form::Paper { global_views })?;
    let key = entry["keys"]["paper_alg2"].as_str();
    let key = key.ok_or("no key paper_alg2")?;
    let wanted = &expected[key];
    for (name, got) in [("inv", paper.invariance), ("loss", paper.loss)] {
        report.value(
            &format!("{key}: {name}"),
            got,
            &wanted[name],
            Quantity::Loss,
        )?;
    }
    report.compare(
        &format!("{key}: grad_first"),
        &paper.gradient,
        &wanted["grad_first"],
        Quantity::Gradient,
    )?;

    let joint = losses(Form::StablePretraining { global_views })?;
    for (key, got, quantity) in [
        ("flattened_views_sigreg", joint.sigreg, Quantity::Statistic),
        ("spt_loss_inv_plus_lam_sigreg", joint.loss, Quantity::Loss),
    ] {
        report.value(key, got, &expected[key], quantity)?;
    }
    Ok(())
}

/// A case of one of those kinds.
fn vicreg(report: &mut Report, key: &str, case: &Value, expected: &Value) -> Outcome {
    let (first, shape) = matrix(&expected["vic_z1"])?;
    let (second, _) = matrix(&expected["vic_z2"])?;
    let wanted = &expected[key];
    let default = Hinge::default();
    let hinge = Hinge {
        margin: case["margin"].as_f64().unwrap_or(default.margin),
        eps: case["eps"].as_f64().unwrap_or(default.eps),
    };
    match case["kind"].as_str() {
        Some("hinge_std") => {
            let term = hinge_std(&first, shape, hinge).map_err(text)?;
            return report.value(key, term.value, wanted, Quantity::Loss);
        }
        Some("off_diagonal_covariance") => {
            let term = covariance(&first, shape).map_err(text)?;
            return report.value(key, term.value, wanted, Quantity::Loss);
        }
        _ => {}
    }
    let losses = VicReg {
        std_coefficient: number(case, "std_coeff")?,
        cov_coefficient: number(case, "cov_coeff")?,
        inv_coefficient: number(case, "inv_coeff")?,
        hinge,
    }
    .evaluate(&first, &second, shape)
    .map_err(text)?;
    if case["kind"] == "vicreg_grad_wrt_z1" {
        return report.compare(key, &losses.gradients[0], wanted, Quantity::Gradient);
    }
    for (name, got) in [
        ("loss", losses.loss),
        ("invariance_loss", losses.invariance),
        ("var_loss", losses.std),
        ("cov_loss", losses.cov),
    ] {
        report.value(
            &format!("{key}: {name}"),
            got,
            &wanted[name],
            Quantity::Loss,
        )?;
    }
    Ok(())
}

/// The variant of SIGReg that a case describes.
fn variant(case: &Value) -> Result<SigReg, String> {
    Ok(SigReg {
        quadrature: match case["quadrature"].as_str() {
            Some("half_interval_doubled") => Quadrature::HalfIntervalDoubled,
            Some("full_interval_trapezoid") => Quadrature::FullIntervalTrapezoid,
            other => return Err(format!("unknown quadrature {other:?}")),
        },
        t_max: number(case, "t_max")?,
        knots: size(case, "n_knots")?,
        times_n: case["times_n"].as_bool().ok_or("no times_n")?,
        // The directions are given.
        slices: 1,
    })
}

/// The mean statistic of samples of `n` standard normals: `repeats` times `slices` of them, or more, so that the
/// difference to the reference's own random number is mostly the reference's.
fn monte_carlo(variant: &SigReg, n: usize, slices: usize, repeats: usize) -> Result<f64, String> {
    let mut generator = Stream::new(0, "conformance", 0);
    let mut x = vec![0.0; slices * n];
    let along = along()?;
    let mut sum = 0.0;
    let repeats = repeats.max(LEAST_SAMPLES.div_ceil(slices));
    for _ in 0..repeats {
        generator.fill_normal(&mut x);
        let statistics = variant.statistics(&x, [slices, n, 1], &along);
        sum += statistics.map_err(text)?.iter().sum::<f64>();
    }
    Ok(sum / (repeats * slices) as f64)
}

/// The only direction of one-dimensional embeddings.
fn along() -> Result<Directions, String> {
    Directions::from_columns(&[1.0], [1, 1]).map_err(text)
}

/// A full tensor of two axes.
fn matrix(tensor: &Value) -> Result<(Vec<f32>, [usize; 2]), String> {
    let shape = sizes(&tensor["shape"]);
    let shape = shape.try_into().map_err(|_| "a matrix has no 2 axes")?;
    Ok((floats(tensor), shape))
}

/// The values of a full tensor.
fn floats(tensor: &Value) -> Vec<f32> {
    narrow(&flat(&tensor["data"]))
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn number(of: &Value, key: &str) -> Result<f64, String> {
    of[key].as_f64().ok_or(format!("no number {key}"))
}

fn size(of: &Value, key: &str) -> Result<usize, String> {
    let size = of[key].as_u64().ok_or(format!("no size {key}"))?;
    Ok(size as usize)
}

fn text(error: webjepa::Error) -> String {
    error.to_string()
}
