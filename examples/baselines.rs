//! What plain pixels and HOG features are worth on a set of labelled pictures, judged as embeddings are: the numbers that a
//! trained encoder must beat.
//!
//! `cargo run --release --no-default-features --features data --example baselines -- SET [COUNT] [SIDE] [CELL]`: of the
//! training pictures the first COUNT, pixels of SIDE × SIDE, HOG cells of CELL pixels.

use std::process::ExitCode;
use std::time::Instant;

use webjepa::data::{Dataset, Labelled, Picture};
use webjepa::input::Processor;
use webjepa::probe::Samples;
use webjepa::probe::hog::hog;
use webjepa::probe::knn::{Knn, Vote};
use webjepa::probe::linear::{Descent, LinearProbe, Ridge};
use webjepa::rng::Stream;
use webjepa::{Error, Result};

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baselines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let number = |at: usize, default: usize| {
        arguments.get(at).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|_| Error::BadInput(format!("{text} is not a whole number.")))
        })
    };
    let Some(path) = arguments.first() else {
        return Err(Error::BadInput(
            "Name a folder or a tar archive of labelled pictures.".into(),
        ));
    };
    let (count, side, cell) = (number(1, 10_000)?, number(2, 28)?, number(3, 4)?);
    let start = Instant::now();
    let set = Dataset::read(path.as_ref(), 0)?;
    let validation = set.validation.as_ref().map_or(0, Labelled::len);
    println!(
        "{} classes, {} pictures to train on, {validation} to validate, {} to test ({:.1} s)",
        set.classes.len(),
        set.train.len(),
        set.test.len(),
        start.elapsed().as_secs_f64()
    );
    let colour = set
        .train
        .pictures
        .iter()
        .any(|picture| picture.channels == 3);
    let channels = if colour { 3 } else { 1 };
    let processor = Processor::default_for([side; 2])?
        .with_statistics(&vec![0.0; channels], &vec![1.0; channels])?;
    judged(&set, count, "pixels", |picture| {
        processor.apply(&picture.view())
    })?;
    judged(&set, count, "HOG", |picture| hog(&picture.view(), cell))
}

/// Prints the accuracies on the test pictures.
fn judged(
    set: &Dataset,
    count: usize,
    name: &str,
    features: impl Fn(&Picture) -> Result<Vec<f32>>,
) -> Result<()> {
    let of = |part: &Labelled, count: usize| -> Result<Vec<f32>> {
        let all: Result<Vec<_>> = part.pictures.iter().take(count).map(&features).collect();
        Ok(all?.concat())
    };
    let count = count.min(set.train.len());
    let train = of(&set.train, count)?;
    let test = of(&set.test, set.test.len())?;
    let samples = Samples {
        features: &train,
        d: train.len() / count,
        labels: &set.train.labels[..count],
        classes: set.classes.len(),
    };
    let report = |probe: &str, accuracy: f64, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{name:7} d {:5}  {probe:26} {:6.2} %  {seconds:5.1} s",
            samples.d,
            100.0 * accuracy
        );
    };
    let start = Instant::now();
    let predicted = Knn::new(&samples)?.predict(&test, Vote::default())?;
    report(
        "k-NN, k 20, T 0.07",
        predicted.accuracy(&set.test.labels),
        start,
    );
    let start = Instant::now();
    let (probe, ridge) = LinearProbe::ridge(&samples, Ridge::CrossValidated)?;
    let accuracy = probe.predict(&test)?.accuracy(&set.test.labels);
    report(&format!("ridge {ridge:.0}"), accuracy, start);
    let start = Instant::now();
    let mut random = Stream::new(0, "probe", 0);
    let probe = LinearProbe::logistic(&samples, Descent::default(), &mut random)?;
    let accuracy = probe.predict(&test)?.accuracy(&set.test.labels);
    report("logistic regression", accuracy, start);
    Ok(())
}
